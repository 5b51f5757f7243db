package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"drover/cmd/drover/controller/recipe"

	"code.cloudfoundry.org/bbs/models"
)

// Kinds of records, which are their directories too.
const (
	kindApps   = "apps"
	kindBuilds = "builds"
	kindTasks  = "tasks"
)

// States of builds and Tasks.
const (
	StateRunning   = "RUNNING"
	StateSucceeded = "SUCCEEDED"
	StateFailed    = "FAILED"
)

// Build is one attempt to stage an app.
type Build struct {
	GUID string `json:"guid"`
	App  string `json:"app"`
	// Docker builds make no droplet.
	Docker bool   `json:"docker,omitempty"`
	State  string `json:"state"`
	// DropletSHA256 is set by the upload, which comes before the completion.
	DropletSHA256 string                       `json:"droplet_sha256,omitempty"`
	Completion    *models.TaskCallbackResponse `json:"completion,omitempty"`
	UpdatedAt     time.Time                    `json:"updated_at"`
	// Hold asks that the completion is answered only once Client.Release was called, or a few seconds later: the Task
	// and its log are gone soon after.
	Hold bool `json:"hold,omitempty"`
}

// Task is a one-off command of an app.
type Task struct {
	GUID       string                       `json:"guid"`
	App        string                       `json:"app"`
	Name       string                       `json:"name"`
	State      string                       `json:"state"`
	Completion *models.TaskCallbackResponse `json:"completion,omitempty"`
	UpdatedAt  time.Time                    `json:"updated_at"`
	// Hold is as in Build.
	Hold bool `json:"hold,omitempty"`
}

// read returns one record.
func read[T any](s *Server, kind, name string) (T, error) {
	var record T
	text, err := s.root.ReadFile(recordName(kind, name))
	if err != nil {
		return record, fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return record, fmt.Errorf("read record %s: %w", recordName(kind, name), err)
	}
	return record, nil
}

// change reads a record, lets edit alter it and writes it, with nobody in between.
func change[T any](s *Server, kind, name string, edit func(*T) error) error {
	s.records.Lock()
	defer s.records.Unlock()
	record, err := read[T](s, kind, name)
	if err != nil {
		return err
	}
	if err := edit(&record); err != nil {
		return err
	}
	return s.write(kind, name, record)
}

func (s *Server) write(kind, name string, record any) error {
	text, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	received, err := s.receive(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	return s.keep(received, recordName(kind, name))
}

func recordName(kind, name string) string {
	return path.Join(kind, name+".json")
}

// newRecord returns an empty record of a kind, for decoding.
func newRecord(kind string) (any, error) {
	switch kind {
	case kindApps:
		return &recipe.App{}, nil
	case kindBuilds:
		return &Build{}, nil
	case kindTasks:
		return &Task{}, nil
	default:
		return nil, ErrNotFound
	}
}

func (s *Server) getRecord(w http.ResponseWriter, r *http.Request) error {
	kind := r.PathValue("kind")
	if _, err := newRecord(kind); err != nil {
		return err
	}
	record, err := read[json.RawMessage](s, kind, r.PathValue("guid"))
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, record)
}

func (s *Server) listRecords(w http.ResponseWriter, r *http.Request) error {
	kind := r.PathValue("kind")
	if _, err := newRecord(kind); err != nil {
		return err
	}
	dir, err := s.root.Open(kind)
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	list := make([]json.RawMessage, 0, len(names))
	for _, name := range names {
		record, err := read[json.RawMessage](s, kind, strings.TrimSuffix(name, ".json"))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted while we were listing
		}
		if err != nil {
			return err
		}
		list = append(list, record)
	}
	return answerJSON(w, http.StatusOK, list)
}

func (s *Server) putRecord(w http.ResponseWriter, r *http.Request) error {
	kind := r.PathValue("kind")
	record, err := newRecord(kind)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(record); err != nil {
		return refuse("record is not readable: %v", err)
	}
	s.records.Lock()
	defer s.records.Unlock()
	if err := s.write(kind, r.PathValue("guid"), record); err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, struct{}{})
}

func (s *Server) deleteRecord(w http.ResponseWriter, r *http.Request) error {
	kind := r.PathValue("kind")
	if _, err := newRecord(kind); err != nil {
		return err
	}
	s.records.Lock()
	defer s.records.Unlock()
	if err := s.root.Remove(recordName(kind, r.PathValue("guid"))); err != nil {
		return fmt.Errorf("delete record: %w", err)
	}
	return answerJSON(w, http.StatusOK, struct{}{})
}

// readBody reads a bounded body whole.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSON))
	if err != nil {
		return nil, refuse("body is not readable: %v", err)
	}
	return text, nil
}
