package server

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"drover/bridge/mtls"
	"drover/cmd/drover/controller/recipe"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
)

// world is a server over mutual TLS, its client, and plain requests as cells and uploaders make them.
type world struct {
	*Client
	t   *testing.T
	dir string
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	authority, err := mtls.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(t.TempDir(), "cc", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	identity, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(server.Handler())
	web.TLS = identity.Server()
	web.StartTLS()
	t.Cleanup(func() {
		web.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{Client: NewClient(web.URL, identity), t: t, dir: dir}
}

// send makes one request and returns its status and body.
func (w *world) send(method, path string, header http.Header, body io.Reader) (int, string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := w.http.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// upload sends content as cc-uploader does.
func (w *world) upload(path, content, md5sum string) (int, string) {
	w.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "droplet.tgz")
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.WriteString(part, content); err != nil {
		w.t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		w.t.Fatal(err)
	}
	header := http.Header{"Content-Type": {form.FormDataContentType()}}
	if md5sum != "" {
		header.Set("Content-MD5", md5sum)
	}
	return w.send(http.MethodPost, path, header, &body)
}

func md5of(content string) string {
	sum := md5.Sum([]byte(content))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestServer_stagesABuild(t *testing.T) {
	w := newWorld(t, t.TempDir())
	ctx := t.Context()
	sum, err := w.PutPackage(ctx, "package-1", strings.NewReader("bits"))
	if err != nil {
		t.Fatal(err)
	}
	if status, body := w.send(http.MethodGet, "/internal/v4/packages/package-1", nil, nil); status != 200 || body != "bits" {
		t.Errorf("package: %d %q", status, body)
	}
	if len(sum) != 64 {
		t.Errorf("checksum %q", sum)
	}
	if err := w.PutBuild(ctx, Build{GUID: "build-1", State: StateRunning}); err != nil {
		t.Fatal(err)
	}
	status, body := w.upload("/internal/v4/droplets/build-1/upload?async=true", "droplet", md5of("droplet"))
	if status != http.StatusCreated || !strings.Contains(body, `"status":"queued"`) || !strings.Contains(body, "/internal/v4/staging_jobs/") {
		t.Fatalf("upload answered %d %s", status, body)
	}
	_, rest, _ := strings.Cut(body, "/internal/v4/staging_jobs/")
	job, _, _ := strings.Cut(rest, `"`)
	finished := eventually(t, func() bool {
		_, body := w.send(http.MethodGet, "/internal/v4/staging_jobs/"+job, nil, nil)
		return strings.Contains(body, `"status":"finished"`)
	})
	if !finished {
		t.Fatal("the upload's job never finished")
	}
	build, err := w.Build(ctx, "build-1")
	if err != nil {
		t.Fatal(err)
	}
	path := "/internal/v4/droplets/process/" + build.DropletSHA256 + "/download"
	if status, body := w.send(http.MethodGet, path, nil, nil); status != 200 || body != "droplet" {
		t.Errorf("droplet: %d %q", status, body)
	}
	callback := `{"task_guid":"build-1","failed":false,"failure_reason":"","result":"{}","created_at":7}`
	if status, body := w.send(http.MethodPost, "/internal/v3/staging/build-1/build_completed?start=false", nil, strings.NewReader(callback)); status != 200 {
		t.Fatalf("callback: %d %s", status, body)
	}
	build, err = w.Build(ctx, "build-1")
	if err != nil {
		t.Fatal(err)
	}
	want := &models.TaskCallbackResponse{TaskGuid: "build-1", Result: "{}", CreatedAt: 7}
	if diff := cmp.Diff(want, build.Completion); diff != "" || build.State != StateSucceeded {
		t.Errorf("state %s, completion -want +got:\n%s", build.State, diff)
	}
}

// eventually waits for a condition, for five seconds at most.
func eventually(t *testing.T, met func() bool) bool {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-deadline:
			return false
		case <-tick.C:
			if met() {
				return true
			}
		}
	}
}

func TestServer_callbacks(t *testing.T) {
	const good = `{"task_guid":"t","failed":true,"failure_reason":"APP/TASK/x: Exited with status 1","result":"","created_at":1}`
	tests := []struct {
		name, path, body string
		want             int
	}{
		{"accepts how a Task ended", "/internal/v4/tasks/t/completed", good, 200},
		{"refuses a second end", "/internal/v4/tasks/t/completed", good, 400},
		{"does not know other Tasks", "/internal/v4/tasks/u/completed", strings.Replace(good, `"t"`, `"u"`, 1), 404},
		{"refuses another Task's guid", "/internal/v4/tasks/u/completed", good, 400},
		{"refuses a callback without failure_reason", "/internal/v4/tasks/t/completed", `{"task_guid":"t","failed":true,"created_at":1}`, 400},
		{"refuses what is no JSON", "/internal/v4/tasks/t/completed", `task`, 400},
		{"does not know other builds", "/internal/v3/staging/t/build_completed", good, 404},
		{"hears of crashes", "/internal/v4/apps/p/crashed", `{"instance":"i","index":0,"reason":"CRASHED"}`, 200},
	}
	w := newWorld(t, t.TempDir())
	if err := w.PutTask(t.Context(), Task{GUID: "t", State: StateRunning}); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if status, body := w.send(http.MethodPost, test.path, nil, strings.NewReader(test.body)); status != test.want {
				t.Errorf("got %d %s, want %d", status, body, test.want)
			}
		})
	}
	task, err := w.Task(t.Context(), "t")
	if err != nil || task.State != StateFailed || task.Completion.FailureReason != "APP/TASK/x: Exited with status 1" {
		t.Errorf("got %+v, %v", task, err)
	}
}

func TestServer_failsABuildWithoutADroplet(t *testing.T) {
	w := newWorld(t, t.TempDir())
	if err := w.PutBuild(t.Context(), Build{GUID: "b", State: StateRunning}); err != nil {
		t.Fatal(err)
	}
	callback := `{"task_guid":"b","failed":false,"failure_reason":"","result":"{}","created_at":7}`
	w.send(http.MethodPost, "/internal/v3/staging/b/build_completed", nil, strings.NewReader(callback))
	build, err := w.Build(t.Context(), "b")
	if err != nil || build.State != StateFailed {
		t.Errorf("got %+v, %v; want a failed build", build, err)
	}
}

func TestServer_uploads(t *testing.T) {
	w := newWorld(t, t.TempDir())
	cache := "/internal/v4/buildpack_cache/cflinuxfs4/app/"
	if status, body := w.upload(cache+"upload", "cache", md5of("other")); status != 400 || !strings.Contains(body, "md5") {
		t.Errorf("a wrong checksum: %d %s", status, body)
	}
	if sum, err := w.CacheSHA256(t.Context(), "cflinuxfs4", "app"); sum != "" || err != nil {
		t.Errorf("a refused upload left %q, %v", sum, err)
	}
	if status, body := w.upload(cache+"upload", "cache", ""); status != 200 {
		t.Errorf("upload: %d %s", status, body)
	}
	if status, body := w.send(http.MethodGet, cache+"download", nil, nil); status != 200 || body != "cache" {
		t.Errorf("download: %d %s", status, body)
	}
	if sum, err := w.CacheSHA256(t.Context(), "cflinuxfs4", "app"); len(sum) != 64 || err != nil {
		t.Errorf("checksum %q, %v", sum, err)
	}
	if status, _ := w.upload("/internal/v4/droplets/unknown/upload", "x", ""); status != 404 {
		t.Errorf("a droplet of no build: %d", status)
	}
	if status, _ := w.send(http.MethodPost, cache+"upload", nil, strings.NewReader("raw")); status != 400 {
		t.Errorf("a raw upload: %d", status)
	}
}

func TestServer_refusesNamesThatAreNoNames(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for _, name := range []string{"..", ".hidden", "a/../../b", strings.Repeat("x", 300)} {
		status, _ := w.send(http.MethodGet, "/internal/v4/packages/"+url.PathEscape(name), nil, nil)
		if status != http.StatusBadRequest && status != http.StatusNotFound {
			t.Errorf("%q: %d", name, status)
		}
	}
}

func TestServer_keepsAppsOverARestart(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	first := newWorld(t, dir)
	for _, name := range []string{"web", "api"} {
		if err := first.PutApp(ctx, recipe.App{Name: name, GUID: "guid-" + name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.PutApp(ctx, recipe.App{Name: "../evil"}); err == nil {
		t.Error("a bad app name was taken")
	}
	second := newWorld(t, dir)
	apps, err := second.Apps(ctx)
	if err != nil || len(apps) != 2 || apps[0].Name != "api" || apps[1].GUID != "guid-web" {
		t.Fatalf("got %+v, %v", apps, err)
	}
	if err := second.DeleteApp(ctx, "api"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.App(ctx, "api"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a deleted app gave %v", err)
	}
	if status, _ := second.send(http.MethodGet, "/drover/secrets", nil, nil); status != 404 {
		t.Errorf("an unknown kind of record: %d", status)
	}
}
