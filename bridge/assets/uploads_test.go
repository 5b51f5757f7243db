package assets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// controller is the half of Cloud Controller that takes uploads. Its jobs go through the states it is given.
type controller struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	states []string
	jobURL func(base string) string
	polls  []*http.Request

	query  string
	header http.Header
	field  string
	name   string
	file   []byte
}

func newController(t *testing.T, states ...string) *controller {
	t.Helper()
	c := &controller{status: http.StatusCreated, states: states, jobURL: func(string) string { return "/staging/jobs/1" }}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Method == http.MethodGet {
		c.polls = append(c.polls, r)
		c.answer(w)
		return
	}
	c.query, c.header = r.URL.RawQuery, r.Header
	reader, err := r.MultipartReader()
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	part, err := reader.NextPart()
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	c.field, c.name = part.FormName(), part.FileName()
	c.file, _ = io.ReadAll(part)
	w.WriteHeader(c.status)
	c.answer(w)
}

func (c *controller) answer(w io.Writer) {
	state := ""
	if len(c.states) > 0 {
		state, c.states = c.states[0], c.states[1:]
	}
	_, _ = fmt.Fprintf(w, `{"metadata":{"guid":"1","url":%q},"entity":{"status":%q}}`, c.jobURL(c.URL), state)
}

// uploader returns one that does not wait long between its looks.
func uploader(t *testing.T) *httptest.Server {
	t.Helper()
	u := Uploads(nil, slog.New(slog.DiscardHandler))
	u.poll = time.Millisecond
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	return server
}

// client stands for whoever uploads from a cell.
var client = &http.Client{Timeout: time.Minute}

func upload(t *testing.T, target string, body io.Reader, header http.Header) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func TestUploads_droplet(t *testing.T) {
	cc, u := newController(t, "queued", "running", "finished"), uploader(t)
	content := bytes.Repeat([]byte("droplet"), 100_000)
	target := u.URL + "/v1/droplet/guid?timeout=60&cc-droplet-upload-uri=" +
		url.QueryEscape(strings.Replace(cc.URL, "http://", "http://staging_user:pw@", 1)+"/staging/v3/droplets/guid/upload?x=1")
	status, text := upload(t, target, bytes.NewReader(content),
		http.Header{"Content-Md5": {"bWQ1"}, "Content-Digest": {"sha-256=:c2hh:"}})
	if status != http.StatusCreated || text != "" {
		t.Fatalf("%d %q, want 201", status, text)
	}
	if cc.query != "x=1&async=true" {
		t.Errorf("query %q", cc.query)
	}
	if cc.field != "file" || cc.name != "droplet.tgz" || !bytes.Equal(cc.file, content) {
		t.Errorf("field %q with file %q of %d bytes", cc.field, cc.name, len(cc.file))
	}
	for name, want := range map[string]string{"Content-Md5": "bWQ1", "Content-Digest": "sha-256=:c2hh:"} {
		if got := cc.header.Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	if len(cc.polls) != 2 {
		t.Fatalf("%d looks at the job, want 2", len(cc.polls))
	}
	if user, _, _ := cc.polls[0].BasicAuth(); user != "staging_user" || cc.polls[0].URL.Path != "/staging/jobs/1" {
		t.Errorf("looked at %s as %q", cc.polls[0].URL, user)
	}
}

func TestUploads_buildArtifacts(t *testing.T) {
	cc, u := newController(t, "queued"), uploader(t)
	target := u.URL + "/v1/build_artifacts/app?cc-build-artifacts-upload-uri=" + url.QueryEscape(cc.URL+"/upload")
	status, text := upload(t, target, strings.NewReader("cache"), nil)
	if status != http.StatusOK || text != "" {
		t.Fatalf("%d %q, want 200", status, text)
	}
	if cc.query != "" || cc.name != "buildpack_cache.tgz" || string(cc.file) != "cache" || len(cc.polls) != 0 {
		t.Errorf("query %q, file %q of %q, %d looks", cc.query, cc.name, cc.file, len(cc.polls))
	}
	if _, sent := cc.header["Content-Md5"]; sent {
		t.Error("a digest was made up")
	}
}

func TestUploads_absoluteJobURL(t *testing.T) {
	cc, u := newController(t, "queued", "finished"), uploader(t)
	cc.jobURL = func(base string) string { return base + "/elsewhere" }
	status, text := upload(t, u.URL+"/v1/droplet/g?cc-droplet-upload-uri="+url.QueryEscape(cc.URL), strings.NewReader("x"), nil)
	if status != http.StatusCreated || len(cc.polls) != 1 || cc.polls[0].URL.Path != "/elsewhere" {
		t.Errorf("%d %q after %d looks", status, text, len(cc.polls))
	}
}

func TestUploads_failures(t *testing.T) {
	const canary = "canary"
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, c := range []struct {
		promise string
		states  []string
		status  int
		query   func(cc string) string
		body    io.Reader
		want    int
		text    string
	}{
		{"wants a destination", nil, 201, func(string) string { return "" }, strings.NewReader("x"), 400, "cc-droplet-upload-uri is missing"},
		{"wants a destination on the network", nil, 201, func(string) string { return "cc-droplet-upload-uri=file:///" + canary }, strings.NewReader("x"), 400, "no http or https URL"},
		{"wants a timeout in numbers", nil, 201, func(cc string) string { return "timeout=1m&cc-droplet-upload-uri=" + cc }, strings.NewReader("x"), 400, "timeout is no number"},
		{"wants a length", nil, 201, func(cc string) string { return "cc-droplet-upload-uri=" + cc }, io.MultiReader(strings.NewReader("x")), 411, "needs a Content-Length"},
		{"wants content", nil, 201, func(cc string) string { return "cc-droplet-upload-uri=" + cc }, nil, 411, "needs a Content-Length"},
		{"passes a refusal on", []string{"failed"}, 422, func(cc string) string { return "cc-droplet-upload-uri=" + cc }, strings.NewReader("x"), 422, "status code: 422\n{\"metadata\""},
		{"fails with the job", []string{"running", "failed"}, 201, func(cc string) string { return "cc-droplet-upload-uri=" + cc }, strings.NewReader("x"), 500, `has status "failed"`},
		{"fails with a job of unknown state", []string{"pondering"}, 200, func(cc string) string { return "cc-droplet-upload-uri=" + cc }, strings.NewReader("x"), 500, `has status "pondering"`},
		{"fails when nobody listens", nil, 201, func(string) string {
			return "cc-droplet-upload-uri=" + url.QueryEscape(strings.Replace(gone.URL, "http://", "http://u:"+canary+"@", 1)+"?"+canary)
		}, strings.NewReader("x"), 500, "connection refused"},
		{"fails when time is up", []string{"running", "running", "running"}, 201, func(cc string) string { return "timeout=1&cc-droplet-upload-uri=" + cc + "/slow" }, strings.NewReader("x"), 500, "deadline exceeded"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			cc, u := newController(t, c.states...), uploader(t)
			cc.status = c.status
			if strings.Contains(c.query(""), "/slow") {
				cc.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				})
			}
			status, text := upload(t, u.URL+"/v1/droplet/g?"+c.query(cc.URL), c.body, nil)
			if status != c.want || !strings.Contains(text, c.text) {
				t.Errorf("%d %q, want %d %q", status, text, c.want, c.text)
			}
			if strings.Contains(text, canary) {
				t.Errorf("the answer tells a secret: %q", text)
			}
		})
	}
}

// A file of any size passes through, while the sender is still sending it.
func TestUploads_keepsNothing(t *testing.T) {
	u := uploader(t)
	arrived := make(chan struct{}, 1)
	cc := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, 64<<10)); err == nil {
			arrived <- struct{}{}
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer cc.Close()
	reader, writer := io.Pipe()
	const chunks = 64
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.URL+"/v1/build_artifacts/g?cc-build-artifacts-upload-uri="+cc.URL, reader)
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = chunks << 20
	answered := make(chan error, 1)
	go func() {
		response, err := client.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		answered <- err
	}()
	for i := range chunks {
		if _, err := writer.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			continue
		}
		select {
		case <-arrived:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing arrived before all was sent")
		}
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestUploads_stopsWithItsClient(t *testing.T) {
	u := uploader(t)
	reached, left := make(chan struct{}), make(chan struct{})
	cc := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(reached)
		<-r.Context().Done()
		close(left)
	}))
	defer cc.Close()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.URL+"/v1/droplet/g?cc-droplet-upload-uri="+cc.URL, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-reached
		cancel()
	}()
	if response, err := client.Do(request); err == nil {
		_ = response.Body.Close()
		t.Fatal("answered a client that left")
	}
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("the upload went on without its client")
	}
}

func TestUploads_otherPaths(t *testing.T) {
	u := uploader(t)
	if status, _ := upload(t, u.URL+"/v1/droplets/g", strings.NewReader("x"), nil); status != http.StatusNotFound {
		t.Errorf("an unknown path: %d", status)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.URL+"/v1/droplet/g", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if _ = response.Body.Close(); response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", response.StatusCode)
	}
}

func TestUploads_dialsAgain(t *testing.T) {
	cc := newController(t, "finished")
	u := Uploads(nil, slog.New(slog.DiscardHandler))
	u.poll = time.Millisecond
	failures := 2
	u.http.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if failures--; failures >= 0 {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	server := httptest.NewServer(u)
	defer server.Close()
	status, text := upload(t, server.URL+"/v1/droplet/g?cc-droplet-upload-uri="+cc.URL, strings.NewReader("droplet"), nil)
	if status != http.StatusCreated || string(cc.file) != "droplet" {
		t.Errorf("%d %q, file %q", status, text, cc.file)
	}
}
