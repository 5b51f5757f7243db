// Package server is the half of a Cloud Controller that others call: cells fetch app bits and droplets from it,
// cc-uploader hands it droplets and caches, the BBS tells it how staging and one-off Tasks ended. It also keeps the
// records of apps for the commands that a person types.
//
// Everything is on disk below one directory, written by rename, so that a restart forgets nothing: packages by guid,
// droplets by SHA-256, records as JSON. A Server has no clients of its own to trust: serve its Handler over mutual TLS.
package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"sync"
)

// maxBits bounds an app's package, a droplet and a cache.
const maxBits = 8 << 30

// maxJSON bounds callbacks and records.
const maxJSON = 1 << 20

// ErrNotFound is wrapped when something asked for is not there.
var ErrNotFound = errors.New("not found")

// Server keeps a Cloud Controller's content and records.
type Server struct {
	root *os.Root
	log  *slog.Logger

	// records guards read-modify-write of records; jobs are the uploads of this process's life.
	records sync.Mutex
	jobs    jobs
	holds   holds
}

// New opens the content below dir, which is made when missing.
func New(dir string, log *slog.Logger) (*Server, error) {
	for _, sub := range []string{packages, droplets, caches, uploads, kindApps, kindBuilds, kindTasks} {
		if err := os.MkdirAll(dir+"/"+sub, 0o700); err != nil {
			return nil, fmt.Errorf("make content directory: %w", err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open content directory: %w", err)
	}
	return &Server{root: root, log: log}, nil
}

// Close waits for uploads that were accepted and releases the directory.
func (s *Server) Close() error {
	s.jobs.running.Wait()
	return s.root.Close()
}

// Handler answers Cloud Controller's internal API and the commands' own routes below /drover/.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handler := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /internal/v4/packages/{guid}":                         s.getPackage,
		"GET /internal/v4/droplets/{guid}/{checksum}/download":     s.getDroplet,
		"POST /internal/v4/droplets/{guid}/upload":                 s.uploadDroplet,
		"GET /internal/v4/staging_jobs/{guid}":                     s.getJob,
		"GET /internal/v4/buildpack_cache/{stack}/{guid}/download": s.getCache,
		"POST /internal/v4/buildpack_cache/{stack}/{guid}/upload":  s.uploadCache,
		"POST /internal/v3/staging/{guid}/build_completed":         s.buildCompleted,
		"POST /internal/v4/tasks/{guid}/completed":                 s.taskCompleted,
		"POST /internal/v4/apps/{guid}/crashed":                    s.instanceEvent("crashed"),
		"POST /internal/v4/apps/{guid}/rescheduling":               s.instanceEvent("rescheduling"),
		"POST /internal/v4/apps/{guid}/readiness_changed":          s.instanceEvent("readiness changed"),
		"POST /drover/release/{guid}":                              s.release,
		"PUT /drover/packages/{guid}":                              s.putPackage,
		"GET /drover/buildpack_cache/{stack}/{guid}":               s.describeCache,
		"GET /drover/{kind}":                                       s.listRecords,
		"GET /drover/{kind}/{guid}":                                s.getRecord,
		"PUT /drover/{kind}/{guid}":                                s.putRecord,
		"DELETE /drover/{kind}/{guid}":                             s.deleteRecord,
	} {
		mux.HandleFunc(pattern, s.answer(handler))
	}
	return mux
}

// answer turns a handler's error into a status; what the server itself failed at is logged, without URLs' queries.
func (s *Server) answer(handler func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"guid", "checksum", "stack"} {
			if value := r.PathValue(name); value != "" && !nameLike.MatchString(value) {
				http.Error(w, "bad "+name, http.StatusBadRequest)
				return
			}
		}
		err := handler(w, r)
		var refused *refusedError
		switch {
		case err == nil:
		case errors.As(err, &refused):
			s.log.Warn("request refused", "method", r.Method, "path", r.URL.Path, "why", refused.text)
			http.Error(w, refused.text, http.StatusBadRequest)
		case errors.Is(err, ErrNotFound), errors.Is(err, os.ErrNotExist):
			http.Error(w, "not found", http.StatusNotFound)
		default:
			s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
	}
}

// nameLike is what may be a file's name: guids, stacks, checksums and apps' names.
var nameLike = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$`)

// refusedError is a request that was wrong.
type refusedError struct{ text string }

// Error says what was wrong with the request.
func (e *refusedError) Error() string { return e.text }

func refuse(format string, args ...any) error {
	return &refusedError{text: fmt.Sprintf(format, args...)}
}
