package server

import (
	"log/slog"
	"net/http"
)

// tellFailures logs the requests that the registry itself failed; a client's mistakes are answered, not logged.
func tellFailures(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(seen, r)
		if seen.status >= http.StatusInternalServerError {
			log.Error("image request failed", "method", r.Method, "path", r.URL.Path, "status", seen.status)
		}
	})
}

// statusWriter remembers the status that was answered.
type statusWriter struct {
	http.ResponseWriter

	status int
}

// WriteHeader keeps the status before passing it on.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *statusWriter) Unwrap() http.ResponseWriter {
	return w.ResponseWriter
}
