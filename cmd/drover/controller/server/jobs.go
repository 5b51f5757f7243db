package server

import (
	"log/slog"
	"net/http"
	"sync"

	"github.com/google/uuid"
)

// Statuses of a job, in Cloud Controller's words.
const (
	statusQueued   = "queued"
	statusFinished = "finished"
	statusFailed   = "failed"
)

// jobs are pieces of work that a client polls. They are not kept over a restart: the client's upload fails then, and
// with it the staging Task, which a person starts again.
type jobs struct {
	mutex   sync.Mutex
	status  map[string]string
	running sync.WaitGroup
}

// start runs work in the background and returns the guid to ask for.
func (j *jobs) start(work func() error, log *slog.Logger) string {
	guid := uuid.NewString()
	j.set(guid, statusQueued)
	j.running.Go(func() {
		if err := work(); err != nil {
			log.Error("background job failed", "job", guid, "error", err)
			j.set(guid, statusFailed)
			return
		}
		j.set(guid, statusFinished)
	})
	return guid
}

func (j *jobs) set(guid, status string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	if j.status == nil {
		j.status = map[string]string{}
	}
	j.status[guid] = status
}

func (j *jobs) get(guid string) (string, bool) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	status, known := j.status[guid]
	return status, known
}

func (s *Server) getJob(w http.ResponseWriter, r *http.Request) error {
	guid := r.PathValue("guid")
	status, known := s.jobs.get(guid)
	if !known {
		return ErrNotFound
	}
	return answerJob(w, http.StatusOK, guid, status)
}

func answerJob(w http.ResponseWriter, code int, guid, status string) error {
	return answerJSON(w, code, map[string]any{
		"metadata": map[string]any{"guid": guid, "url": "/internal/v4/staging_jobs/" + guid},
		"entity":   map[string]any{"guid": guid, "status": status},
	})
}
