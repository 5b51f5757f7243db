package assets

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	defaultTimeout = 300   // seconds, when the request names none
	longestTimeout = 86400 // seconds
	dials          = 3
	dialTimeout    = 10 * time.Second
	pollInterval   = time.Second
	maxErrorBody   = 64 << 10
)

// kind is one of the two things that staging leaves behind.
type kind struct {
	name     string
	param    string
	filename string
	async    bool // Cloud Controller answers with a job, which must have ended before staging has
	status   int
}

// Uploader hands uploads on to Cloud Controller. Make it with Uploads.
type Uploader struct {
	mux  *http.ServeMux
	http *http.Client
	log  *slog.Logger
	poll time.Duration
}

// Uploads returns a handler that shows the certificate in config to the Cloud Controllers that ask for one.
func Uploads(config *tls.Config, log *slog.Logger) *Uploader {
	u := &Uploader{
		mux:  http.NewServeMux(),
		log:  log,
		poll: pollInterval,
		http: &http.Client{
			Transport: &http.Transport{
				TLSClientConfig:     config,
				TLSHandshakeTimeout: dialTimeout,
				DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
				IdleConnTimeout:     90 * time.Second,
			},
			// Bits go where the caller said and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	u.mux.Handle("POST /v1/droplet/{guid}", u.serve(kind{
		name: "droplet", param: "cc-droplet-upload-uri", filename: "droplet.tgz", async: true, status: http.StatusCreated,
	}))
	u.mux.Handle("POST /v1/build_artifacts/{guid}", u.serve(kind{
		name: "build artifacts", param: "cc-build-artifacts-upload-uri", filename: "buildpack_cache.tgz", status: http.StatusOK,
	}))
	return u
}

// ServeHTTP answers when Cloud Controller has the file.
func (u *Uploader) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.mux.ServeHTTP(w, r) }

// refused is an answer that is no success, and its reason.
type refused struct {
	status int
	text   string
}

func (e *refused) Error() string { return e.text }

func (u *Uploader) serve(k kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		log := u.log.With("kind", k.name, "guid", r.PathValue("guid"), "bytes", r.ContentLength)
		err := u.handOn(r, k)
		log = log.With("took", time.Since(start))
		if err == nil {
			log.InfoContext(r.Context(), "upload")
			w.WriteHeader(k.status)
			return
		}
		status := http.StatusInternalServerError
		var why *refused
		if errors.As(err, &why) {
			status = why.status
			log.WarnContext(r.Context(), "upload refused", "status", status)
		} else {
			log.WarnContext(r.Context(), "upload failed", "error", err)
		}
		http.Error(w, err.Error(), status)
	}
}

// handOn sends the body of one request to Cloud Controller and waits for what becomes of it.
func (u *Uploader) handOn(r *http.Request, k kind) error {
	target, seconds, err := parse(r, k)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	response, err := u.send(ctx, r, target, k)
	if err != nil {
		return fmt.Errorf("send to Cloud Controller: %w", withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody)) // As much of it as there is.
		return &refused{response.StatusCode, fmt.Sprintf("status code: %d\n%s", response.StatusCode, body)}
	}
	if !k.async {
		return nil
	}
	return u.await(ctx, target, response.Body)
}

// parse finds the destination of a request and how many seconds it has.
func parse(r *http.Request, k kind) (target *url.URL, seconds int, err error) {
	query := r.URL.Query()
	uri := query.Get(k.param)
	if uri == "" {
		return nil, 0, &refused{http.StatusBadRequest, "the parameter " + k.param + " is missing"}
	}
	target, err = url.Parse(uri)
	if err != nil || !reachable(target) {
		return nil, 0, &refused{http.StatusBadRequest, "the parameter " + k.param + " is no http or https URL"}
	}
	seconds = defaultTimeout
	if text := query.Get("timeout"); text != "" {
		if seconds, err = strconv.Atoi(text); err != nil || seconds <= 0 {
			return nil, 0, &refused{http.StatusBadRequest, "the parameter timeout is no number of seconds"}
		}
	}
	if r.ContentLength <= 0 {
		return nil, 0, &refused{http.StatusLengthRequired, "an upload needs a Content-Length"}
	}
	if k.async {
		if target.RawQuery != "" {
			target.RawQuery += "&"
		}
		target.RawQuery += "async=true"
	}
	return target, min(seconds, longestTimeout), nil
}

func reachable(target *url.URL) bool {
	return target.Host != "" && (target.Scheme == "https" || target.Scheme == "http")
}

// send posts the form. It tries again only when nobody could be reached, because a body can be read but once.
func (u *Uploader) send(ctx context.Context, r *http.Request, target *url.URL, k kind) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		request, err := form(ctx, r, target, k.filename)
		if err != nil {
			return nil, err
		}
		response, err := u.http.Do(request)
		if err == nil || !isDial(err) || attempt == dials {
			return response, err
		}
		if err := u.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// form wraps a raw body into the multipart form that holds it, around the body and not as a copy.
func form(ctx context.Context, r *http.Request, target *url.URL, filename string) (*http.Request, error) {
	var frame bytes.Buffer
	writer := multipart.NewWriter(&frame)
	if _, err := writer.CreateFormFile("file", filename); err != nil {
		return nil, err
	}
	head := frame.Len()
	if err := writer.Close(); err != nil {
		return nil, err
	}
	body := io.MultiReader(bytes.NewReader(frame.Bytes()[:head]), r.Body, bytes.NewReader(frame.Bytes()[head:]))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), io.NopCloser(body))
	if err != nil {
		return nil, err
	}
	request.ContentLength = int64(frame.Len()) + r.ContentLength
	request.Header.Set("Content-Type", writer.FormDataContentType())
	for _, name := range []string{"Content-MD5", "Content-Digest"} { // Digests of the file, not of the form.
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	return request, nil
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (u *Uploader) pause(ctx context.Context) error {
	timer := time.NewTimer(u.poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// withoutURL takes the URL, and what it holds, out of an error of net/http.
func withoutURL(err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		return inURL.Err
	}
	return err
}
