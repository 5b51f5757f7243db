// Package bbs is the door through which Cloud Controllers of today come: Diego's BBS API.
//
// Handler answers protobuf messages of bbs/models over HTTP by calling a bridge.Runtime once per request. Routes lists
// the whole API with what we do about each route; those that are not served answer 404, as a BBS does that is older
// than the route, and clients that know better fall back. NewServer wraps a Handler in the limits that a listener
// needs; certificates are the caller's (see bridge/mtls).
//
// What clients depend on, and the tests keep:
//
//   - An application's error is a response of status 200 with the error in field 1. Its texts are load-bearing.
//   - When the Runtime itself fails, the answer is a bare 503. Cloud Controller then leaves the domain unfresh.
//   - Messages that are never null in the schema are sent even when empty.
//   - A route that ends in .r2 returns image layers folded into cached dependencies and download actions.
//
// A request is logged with its route, guid, trace id, duration and outcome; bodies are secret and never logged.
package bbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

const (
	// maxBody bounds a request. An LRP holds at most 1 MiB of files, and routes and environment are smaller still.
	maxBody = 10 << 20
	// requestTimeout bounds the one call to the Runtime. Cloud Controller itself waits for ten seconds.
	requestTimeout = 30 * time.Second
	// maxLogged bounds each name that a caller can write into our log.
	maxLogged = 128

	traceHeader = "X-Vcap-Request-Id"
	contentType = "application/x-protobuf"
)

// Handler serves the BBS API from a Runtime.
func Handler(runtime bridge.Runtime, log *slog.Logger) http.Handler {
	d := &door{runtime: runtime, log: log, serving: map[string]serving{}}
	for _, e := range table() {
		if e.open != nil {
			d.serving[e.path] = serving{name: e.name, method: e.method, answer: e.open(d)}
		}
	}
	return d
}

// NewServer gives a Handler the limits without which a slow or greedy caller could hold a listener's memory.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

type door struct {
	runtime bridge.Runtime
	log     *slog.Logger
	serving map[string]serving
}

type serving struct {
	name, method string
	answer       answer
}

// ServeHTTP finds the route, answers it and tells the log.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, known := d.serving[r.URL.Path]
	if !known {
		http.NotFound(w, r)
		return
	}
	if r.Method != route.method {
		w.Header().Set("Allow", route.method)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	start := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	reply := route.ask(r.Context(), body, readError(err))
	if reply.unavailable == nil {
		reply.unavailable = write(w, reply.message)
	}
	if reply.unavailable != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	d.note(r, route.name, reply, time.Since(start))
}

// ask answers, and makes a failure out of a panic: one of the server's own recovery would be told to nobody.
func (s serving) ask(ctx context.Context, body []byte, bad *models.Error) (r reply) {
	defer func() {
		if panicked := recover(); panicked != nil {
			r = reply{unavailable: fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())}
		}
	}()
	return s.answer(ctx, body, bad)
}

// readError is what a caller hears whose body could not be read.
func readError(err error) *models.Error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return models.NewError(models.Error_InvalidRequest, fmt.Sprintf("the request is larger than %d bytes", tooLarge.Limit))
	default:
		return models.ErrUnknownError
	}
}

// write sends a message. It fails only before the first byte is sent.
func write(w http.ResponseWriter, m message) error {
	data, err := m.Marshal()
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // The caller is gone when this fails, and nobody is left to tell.
	return nil
}

func (d *door) note(r *http.Request, route string, reply reply, took time.Duration) {
	attrs := []slog.Attr{
		slog.String("route", route),
		slog.String("guid", bounded(reply.guid)),
		slog.String("request_id", bounded(r.Header.Get(traceHeader))),
		slog.Duration("took", took),
	}
	level, outcome := slog.LevelInfo, "ok"
	switch {
	case reply.unavailable != nil:
		level, outcome = slog.LevelError, "unavailable"
		attrs = append(attrs, slog.Any("error", reply.unavailable))
	case reply.refused != nil:
		outcome = reply.refused.Type.String()
	case route == pingRoute:
		level = slog.LevelDebug
	}
	d.log.LogAttrs(context.WithoutCancel(r.Context()), level, "bbs request", append(attrs, slog.String("outcome", outcome))...)
}

func bounded(name string) string { return name[:min(len(name), maxLogged)] }
