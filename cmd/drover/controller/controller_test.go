package controller

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/bridge"
	"drover/bridge/bbs"
	"drover/bridge/bridgetest"
	"drover/bridge/cc"
	"drover/bridge/mtls"
	"drover/bridge/notify"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"

	"code.cloudfoundry.org/bbs/models"
)

// platform is a Controller with its server, and a real BBS door before an in-memory runtime.
type platform struct {
	*Controller
	t       *testing.T
	runtime *bridgetest.Memory
	calls   *http.Client
	bits    map[string]string // what the last staging Task downloaded
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	authority, err := mtls.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(t.TempDir(), "all", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	identity, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	runtime := bridgetest.NewMemory(time.Now)
	door := serve(t, identity, bbs.Handler(runtime, quiet))
	keeper, err := server.New(t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := keeper.Close(); err != nil {
			t.Error(err)
		}
	})
	own := serve(t, identity, keeper.Handler())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		notify.New(runtime, cc.NewClient(identity.Client()).TaskCompleted, quiet).Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	c := New(Config{
		BBS: door, Server: own,
		Platform: recipe.Platform{
			CC: own, CCUploader: own, Stack: "cflinuxfs4", SystemDomain: "dev.test", PIDs: 64,
			Lifecycles: map[string]string{"buildpack/cflinuxfs4": "https://files/b.tgz", "docker": "https://files/d.tgz"},
			Staging:    recipe.StagingLimits{Timeout: time.Minute, MemoryMB: 64, DiskMB: 64, NoFile: 1024},
		},
		Buildpacks: []recipe.BuildpackFile{{Name: "node", Key: "node", URL: "https://files/node.zip"}},
	}, identity)
	c.tick = 5 * time.Millisecond
	transport := &http.Transport{TLSClientConfig: identity.Client()}
	return &platform{Controller: c, t: t, runtime: runtime, calls: &http.Client{Transport: transport}, bits: map[string]string{}}
}

func serve(t *testing.T, identity *mtls.Identity, handler http.Handler) string {
	t.Helper()
	web := httptest.NewUnstartedServer(handler)
	web.TLS = identity.Server()
	web.StartTLS()
	t.Cleanup(web.Close)
	return web.URL
}

// cell runs the Tasks of a domain as a cell would, until the test ends: it does what work says.
func (p *platform) cell(domain string, work func(task *models.Task) (failure, result string)) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			tasks, err := p.runtime.Tasks(ctx, bridge.TaskFilter{Domain: domain})
			if err != nil {
				p.t.Error(err)
			}
			for _, task := range tasks {
				if task.State == models.Task_Pending {
					p.runtime.StartTask(p.t, task.TaskGuid, "cell")
					failure, result := work(task)
					p.runtime.CompleteTask(p.t, task.TaskGuid, failure, result)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	p.t.Cleanup(func() { cancel(); <-done })
}

// stageNode downloads the bits, uploads a droplet where the Task says and answers as the buildpack lifecycle does.
func (p *platform) stageNode(task *models.Task) (failure, result string) {
	serial := task.Action.TimeoutAction.Action.SerialAction.Actions
	download := serial[0].ParallelAction.Actions[0].DownloadAction
	response, err := p.call(http.MethodGet, download.From, "", nil)
	if err != nil {
		p.t.Error(err)
		return "Downloading app package failed", ""
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Error(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		p.t.Error(err)
		return "Downloading app package failed", ""
	}
	for _, file := range archive.File {
		p.bits[file.Name] = file.Mode().String()
	}
	upload := serial[2].EmitProgressAction.Action.ParallelAction.Actions[0].UploadAction
	target, err := url.Parse(upload.To)
	if err != nil {
		p.t.Error(err)
	}
	p.upload(target.Query().Get("cc-droplet-upload-uri"), "droplet")
	return "", `{"lifecycle_type":"buildpack","lifecycle_metadata":{"detected_buildpack":"node"},"process_types":{"web":"node server.js"},"execution_metadata":""}`
}

func (p *platform) call(method, url, contentType string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(p.t.Context(), method, url, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", contentType)
	return p.calls.Do(request)
}

func (p *platform) upload(to, content string) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "droplet.tgz")
	if err == nil {
		_, err = io.WriteString(part, content)
	}
	if err := errors.Join(err, form.Close()); err != nil {
		p.t.Error(err)
	}
	response, err := p.call(http.MethodPost, to, form.FormDataContentType(), &body)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	var job struct {
		Metadata struct{ URL string }
		Entity   struct{ Status string }
	}
	for job.Entity.Status != "finished" {
		answer := response
		if job.Metadata.URL != "" {
			if answer, err = p.call(http.MethodGet, p.platform.CC+job.Metadata.URL, "", nil); err != nil {
				p.t.Error(err)
				return
			}
			defer func() { _ = answer.Body.Close() }()
		}
		if err := json.NewDecoder(answer.Body).Decode(&job); err != nil {
			p.t.Error(err)
			return
		}
	}
}

func (p *platform) source() string {
	p.t.Helper()
	dir := p.t.TempDir()
	for name, content := range map[string]string{"server.js": "x", "package.json": "{}", ".git/config": "secret", "lib/a.js": "y"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := os.Symlink("server.js", filepath.Join(dir, "index.js")); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

func TestPush_stagesAndStartsAnApp(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, p.stageNode)
	app, err := p.Push(t.Context(), Push{Name: "hello", Dir: p.source(), Instances: 2}, Observer{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server.js", "lib/a.js", "index.js"} {
		if _, there := p.bits[name]; !there {
			t.Errorf("the package lacks %s: %v", name, p.bits)
		}
	}
	if _, there := p.bits[".git/config"]; there {
		t.Error("the package holds .git")
	}
	if !strings.HasPrefix(p.bits["index.js"], "L") {
		t.Errorf("the link became %s", p.bits["index.js"])
	}
	lrp, err := p.runtime.DesiredLRP(t.Context(), app.LRPGUID())
	if err != nil {
		t.Fatal(err)
	}
	run := lrp.Action.CodependentAction.Actions[0].RunAction
	if lrp.Instances != 2 || run.Args[1] != "node server.js" {
		t.Errorf("desired %d instances of %v", lrp.Instances, run.Args)
	}
}

func TestPush_replacesTheOlderVersion(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, p.stageNode)
	ctx := t.Context()
	first, err := p.Push(ctx, Push{Name: "hello", Dir: p.source(), Instances: 2, Env: map[string]string{"A": "1"}}, Observer{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Push(ctx, Push{Name: "hello", Dir: p.source(), MemoryMB: 128}, Observer{})
	if err != nil {
		t.Fatal(err)
	}
	if second.GUID != first.GUID || second.Version == first.Version || second.Instances != 2 || second.Env["A"] != "1" || second.MemoryMB != 128 {
		t.Errorf("second push made %+v", second)
	}
	if _, err := p.runtime.DesiredLRP(ctx, first.LRPGUID()); !errors.Is(err, models.ErrResourceNotFound) {
		t.Errorf("the older version gave %v", err)
	}
}

func TestPush_tellsWhyStagingFailed(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, func(*models.Task) (string, string) { return "STG: Exited with status 222", "" })
	_, err := p.Push(t.Context(), Push{Name: "hello", Dir: p.source()}, Observer{})
	if !errors.Is(err, ErrStaging) {
		t.Errorf("got %v, want ErrStaging", err)
	}
	for _, part := range []string{"NoAppDetectedError", "STG: Exited with status 222", "node", "--buildpack"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell of %q", err, part)
		}
	}
	if _, err := p.App(t.Context(), "hello"); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("a failed first push left an app: %v", err)
	}
}

func TestPush_cancelsAStagingThatNobodyWaitsFor(t *testing.T) {
	p := newPlatform(t)
	ctx, cancel := context.WithCancel(t.Context())
	watch := Observer{Staging: func(context.Context, string) func() { cancel(); return func() {} }}
	_, err := p.Push(ctx, Push{Name: "hello", Dir: p.source()}, watch)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "staging of hello") {
		t.Errorf("got %v, want an error that names the staging", err)
	}
	tasks, err := p.runtime.Tasks(t.Context(), bridge.TaskFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if task.State == models.Task_Pending || task.State == models.Task_Running {
			t.Errorf("task %s is %s", task.TaskGuid, task.State)
		}
	}
}

func TestPush_image(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, func(*models.Task) (string, string) {
		return "", `{"lifecycle_type":"docker","lifecycle_metadata":{"docker_image":"reg.test:5000/web:1"},"process_types":{"web":""},"execution_metadata":"{\"user\":\"www\"}"}`
	})
	app, err := p.Push(t.Context(), Push{Name: "web", Image: "reg.test:5000/web:1"}, Observer{})
	if err != nil {
		t.Fatal(err)
	}
	lrp, err := p.runtime.DesiredLRP(t.Context(), app.LRPGUID())
	if err != nil || lrp.RootFs != "docker://reg.test:5000/web#1" || lrp.Action.CodependentAction.Actions[0].RunAction.User != "www" {
		t.Errorf("desired %+v, %v", lrp, err)
	}
}

func TestPush_refusesAnUnknownBuildpack(t *testing.T) {
	p := newPlatform(t)
	_, err := p.Push(t.Context(), Push{Name: "a", Dir: p.source(), Buildpack: "cobol"}, Observer{})
	if err == nil || !strings.Contains(err.Error(), "node") {
		t.Errorf("got %v, want an error that lists what there is", err)
	}
}

func TestAwaitRunning(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, p.stageNode)
	app, err := p.Push(t.Context(), Push{Name: "hello", Dir: p.source(), Instances: 2}, Observer{})
	if err != nil {
		t.Fatal(err)
	}
	for index, guid := range []string{"i-0", "i-1"} {
		p.runtime.RunLRP(t, app.LRPGUID(), int32(index), models.NewActualLRPInstanceKey(guid, "cell"), models.ActualLRPNetInfo{Address: "127.0.0.1"})
	}
	if err := p.AwaitRunning(t.Context(), app, Observer{}); err != nil {
		t.Errorf("two running instances: %v", err)
	}
	p.runtime.CrashLRP(t, app.LRPGUID(), 1, "APP/PROC/WEB: Exited with status 3")
	if err := p.AwaitRunning(t.Context(), app, Observer{}); !errors.Is(err, ErrCrashed) || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("a crashed instance gave %v", err)
	}
}

func TestRunTask(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, p.stageNode)
	p.cell(recipe.DomainTasks, func(task *models.Task) (string, string) {
		if run := task.Action.SerialAction.Actions[1].RunAction; run.Args[1] != "exit 4" {
			t.Errorf("the task runs %v", run.Args)
		}
		return "APP/TASK/x: Exited with status 4", ""
	})
	if _, err := p.Push(t.Context(), Push{Name: "hello", Dir: p.source()}, Observer{}); err != nil {
		t.Fatal(err)
	}
	forgotten := true
	task, err := p.RunTask(t.Context(), "hello", "exit 4", func(ctx context.Context, guid string) func() {
		return func() {
			_, err := p.runtime.Task(ctx, guid)
			forgotten = err != nil
		}
	})
	if forgotten {
		t.Error("the task was forgotten while its output was still read")
	}
	if err != nil || task.State != server.StateFailed || task.Completion.FailureReason != "APP/TASK/x: Exited with status 4" {
		t.Errorf("got %+v, %v", task, err)
	}
}

func TestScaleAndDelete(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, p.stageNode)
	ctx := t.Context()
	if _, err := p.Push(ctx, Push{Name: "hello", Dir: p.source()}, Observer{}); err != nil {
		t.Fatal(err)
	}
	app, err := p.Scale(ctx, "hello", 3)
	if err != nil {
		t.Fatal(err)
	}
	if instances, err := p.Instances(ctx, app); err != nil || len(instances) != 3 {
		t.Errorf("%d instances, %v", len(instances), err)
	}
	if err := p.Delete(ctx, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.runtime.DesiredLRP(ctx, app.LRPGUID()); !errors.Is(err, models.ErrResourceNotFound) {
		t.Errorf("after delete: %v", err)
	}
	if err := p.Delete(ctx, "hello"); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("a second delete: %v", err)
	}
}

func TestSync(t *testing.T) {
	p := newPlatform(t)
	p.cell(recipe.DomainStaging, p.stageNode)
	ctx := t.Context()
	app, err := p.Push(ctx, Push{Name: "hello", Dir: p.source()}, Observer{})
	if err != nil {
		t.Fatal(err)
	}
	// The BBS lost our app and holds one that we do not know.
	if err := p.runtime.RemoveLRP(ctx, app.LRPGUID()); err != nil {
		t.Fatal(err)
	}
	surplus := bridgetest.LRP("surplus")
	surplus.Domain = recipe.DomainApps
	if err := p.runtime.DesireLRP(ctx, surplus); err != nil {
		t.Fatal(err)
	}
	if err := p.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.runtime.DesiredLRP(ctx, app.LRPGUID()); err != nil {
		t.Errorf("the missing LRP: %v", err)
	}
	if _, err := p.runtime.DesiredLRP(ctx, "surplus"); !errors.Is(err, models.ErrResourceNotFound) {
		t.Errorf("the surplus LRP: %v", err)
	}
	domains, err := p.runtime.FreshDomains(ctx)
	if err != nil || len(domains) != 2 {
		t.Errorf("fresh domains %v, %v", domains, err)
	}
	// A stale annotation is updated in place.
	app.UpdatedAt = app.UpdatedAt.Add(time.Second)
	if err := p.server.PutApp(ctx, app); err != nil {
		t.Fatal(err)
	}
	if err := p.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if lrp, err := p.runtime.DesiredLRP(ctx, app.LRPGUID()); err != nil || lrp.Annotation != recipe.Annotation(app) {
		t.Errorf("annotation %v, %v", lrp, err)
	}
}
