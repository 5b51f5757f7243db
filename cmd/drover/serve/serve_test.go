package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	diego "code.cloudfoundry.org/bbs"
	"code.cloudfoundry.org/bbs/models"
	"code.cloudfoundry.org/lager/v3"

	"drover/bridge/bridgetest"
	"drover/bridge/mtls"
)

// running is a whole bridge on free ports, over a Runtime in memory.
type running struct {
	Addresses
	runtime *bridgetest.Memory
	files   mtls.Files
	static  string
	stop    func() error
}

func start(t *testing.T) *running {
	t.Helper()
	r := &running{runtime: bridgetest.NewMemory(time.Now), files: issue(t), static: t.TempDir()}
	config := Default()
	*config.TLS = TLS(r.files)
	*config.Listen = Listen{BBS: "127.0.0.1:0", Files: "127.0.0.1:0", Uploader: "127.0.0.1:0"}
	config.StaticDir = r.static
	if err := config.Check(); err != nil {
		t.Fatal(err)
	}
	bridge, err := New(config, r.runtime, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	go func() { ended <- bridge.Run(ctx, func(a Addresses) { ready <- a }) }()
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the bridge ended with %v", err)
		}
	})
	select {
	case r.Addresses = <-ready:
	case err := <-ended:
		t.Fatalf("the bridge did not start: %v", err)
	}
	return r
}

// client is an HTTP client with our certificate, or with none.
func (r *running) client(t *testing.T, anonymous bool) *http.Client {
	t.Helper()
	identity, err := r.files.Load()
	if err != nil {
		t.Fatal(err)
	}
	config := identity.Client()
	if anonymous {
		config.Certificates = nil
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func do(t *testing.T, client *http.Client, method, target string, body io.Reader) (int, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

func TestBridge_opensThreeDoors(t *testing.T) {
	r := start(t)
	if err := os.WriteFile(filepath.Join(r.static, "bundle.tgz"), []byte("bundle"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, body, err := do(t, r.client(t, true), http.MethodGet, "http://"+r.Files.String()+"/v1/static/bundle.tgz", nil); err != nil || status != 200 || body != "bundle" {
		t.Errorf("static file: %d %q %v", status, body, err)
	}
	ping, upload := "https://"+r.BBS.String()+"/v1/ping", "https://"+r.Uploader.String()+"/v1/droplet/g"
	if status, body, err := do(t, r.client(t, false), http.MethodPost, ping, nil); err != nil || status != 200 || body != "\x08\x01" {
		t.Errorf("ping: %d %q %v", status, body, err)
	}
	if status, _, err := do(t, r.client(t, false), http.MethodPost, upload, strings.NewReader("x")); err != nil || status != 400 {
		t.Errorf("upload to nowhere: %d %v", status, err)
	}
	for _, target := range []string{ping, upload} {
		if status, _, err := do(t, r.client(t, true), http.MethodPost, target, strings.NewReader("x")); err == nil {
			t.Errorf("%s let someone without a certificate in: %d", target, status)
		}
	}
}

func TestBridge_tellsCloudControllerWhenItIsBack(t *testing.T) {
	r := start(t)
	identity, err := r.files.Load()
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan models.TaskCallbackResponse, 1)
	calls := 0
	cc := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if calls++; calls == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var got models.TaskCallbackResponse
		if err := json.NewDecoder(q.Body).Decode(&got); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		heard <- got
	}))
	cc.TLS = identity.Server()
	cc.StartTLS()
	defer cc.Close()

	client, err := diego.NewClient("https://"+r.BBS.String(), r.files.CA, r.files.Cert, r.files.Key, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	task := bridgetest.Task()
	task.CompletionCallbackUrl = cc.URL + "/internal/v4/tasks/one/completed"
	if err := client.DesireTask(lager.NewLogger("test"), "trace", "one", "cf-tasks", task); err != nil {
		t.Fatal(err)
	}
	r.runtime.CompleteTask(t, "one", "APP/TASK/x: Exited with status 3", "")
	select {
	case got := <-heard:
		if got.TaskGuid != "one" || !got.Failed || got.FailureReason != "APP/TASK/x: Exited with status 3" {
			t.Errorf("Cloud Controller heard %+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Cloud Controller heard nothing")
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, err = r.runtime.Task(t.Context(), "one"); err == nil && time.Now().Before(deadline); _, err = r.runtime.Task(t.Context(), "one") {
		<-time.After(time.Millisecond)
	}
	if !errors.Is(err, models.ErrResourceNotFound) {
		t.Errorf("the task is left after its callback: %v", err)
	}
}

func TestBridge_finishesUploadsBeforeItEnds(t *testing.T) {
	r := start(t)
	reached, proceed := make(chan struct{}), make(chan struct{})
	cc := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		close(reached)
		<-proceed
	}))
	defer cc.Close()
	type answer struct {
		status int
		err    error
	}
	answered := make(chan answer, 1)
	client := r.client(t, false)
	target := "https://" + r.Uploader.String() + "/v1/build_artifacts/g?cc-build-artifacts-upload-uri=" + url.QueryEscape(cc.URL)
	go func() {
		status, _, err := do(t, client, http.MethodPost, target, strings.NewReader("cache"))
		answered <- answer{status, err}
	}()
	<-reached
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) { // Until the listener is closed, which is the first step of ending.
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.Uploader.String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(proceed)
	if a := <-answered; a.err != nil || a.status != http.StatusOK {
		t.Errorf("the upload was cut: %d %v", a.status, a.err)
	}
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestRun_saysWhichAddressIsTaken(t *testing.T) {
	r := start(t)
	config := Default()
	*config.TLS = TLS(r.files)
	*config.Listen = Listen{BBS: "127.0.0.1:0", Files: "127.0.0.1:0", Uploader: r.Uploader.String()}
	config.StaticDir = r.static
	bridge, err := New(config, r.runtime, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = bridge.Run(t.Context(), func(Addresses) { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "listen.uploader") {
		t.Errorf("got %v, want an error that names listen.uploader", err)
	}
}
