package bundle_test

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/stager/buildpack"
	"drover/stager/bundle"
)

// site is the directory tree of one staging and what follows, as a container has it.
type site struct {
	dir string
	env []string
	// cred is whom programs run as; nil is the test itself.
	cred *syscall.Credential
}

func newSite(t *testing.T, app fs.FS, key, zipFile string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), env: []string{"PATH=" + os.Getenv("PATH"), "CF_STACK=cflinuxfs4"}}
	copyFS(t, s.path("app"), app)
	zr, err := zip.OpenReader(zipFile)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close() //nolint:errcheck // Only read.
	copyFS(t, s.path("buildpacks", buildpack.DirName(key)), zr)
	for _, name := range []string{"cache", "tmp", "home"} {
		if err := os.Mkdir(s.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.env = append(s.env, "TMPDIR="+s.path("tmp"))
	return s
}

func (s *site) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// lifecycle builds the binary, packs it, and unpacks the bundle by tar, as a platform does.
func (s *site) lifecycle(t *testing.T, kind bundle.Lifecycle) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "drover-lifecycle")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "drover/cmd/drover-lifecycle")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	tgz, err := os.Create(filepath.Join(t.TempDir(), kind.File))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bundle.WriteTGZ(tgz, binary, kind), tgz.Close()); err != nil {
		t.Fatal(err)
	}
	s.untar(t, tgz.Name(), "lifecycle")
}

func (s *site) untar(t *testing.T, tgz, dir string) {
	t.Helper()
	if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "tar", "-xzf", tgz, "-C", s.path(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}

// stage runs builder and returns what it said.
func (s *site) stage(t *testing.T, key string) string {
	t.Helper()
	cmd := s.command(t.Context(), s.path("lifecycle", "builder"),
		"-buildDir="+s.path("app"), "-buildpacksDir="+s.path("buildpacks"), "-buildArtifactsCacheDir="+s.path("cache"),
		"-outputDroplet="+s.path("out", "droplet"), "-outputBuildArtifactsCache="+s.path("out", "cache"),
		"-outputMetadata="+s.path("out", "result.json"), "-buildpackOrder="+key, "-skipDetect=false", "-skipCertVerify=false")
	cmd.Dir = s.dir
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("builder: %v\n%s", err, out)
	}
	t.Logf("staged in %v", time.Since(began))
	return string(out)
}

func (s *site) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// running is a started droplet.
type running struct {
	cmd  *exec.Cmd
	url  string
	log  <-chan string
	done <-chan error
}

// launch unpacks the droplet and starts its web process on a free port.
func (s *site) launch(t *testing.T, command string, env ...string) *running {
	t.Helper()
	s.untar(t, s.path("out", "droplet"), "home")
	cmd := s.command(t.Context(), s.path("lifecycle", "launcher"), "app", command, "")
	cmd.Dir = s.path("home")
	cmd.Env = append(append([]string{}, s.env...), append(env, "PORT=0")...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, done := make(chan string, 1000), make(chan error, 1)
	go func() {
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
		close(lines)
		done <- cmd.Wait()
	}()
	r := &running{cmd: cmd, log: lines, done: done}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // Gone already in most tests.
	})
	r.url = "http://127.0.0.1:" + r.await(t, regexp.MustCompile(`on port (\d+)`))
	return r
}

// await returns the first group of the next line that matches.
func (r *running) await(t *testing.T, pattern *regexp.Regexp) string {
	t.Helper()
	var seen []string
	deadline := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-r.log:
			if !ok {
				t.Fatalf("the process ended without a line like %v; it said:\n%s", pattern, strings.Join(seen, "\n"))
			}
			seen = append(seen, line)
			if m := pattern.FindStringSubmatch(line); m != nil {
				return m[len(m)-1]
			}
		case <-deadline:
			t.Fatalf("no line like %v; it said:\n%s", pattern, strings.Join(seen, "\n"))
		}
	}
}

// get returns status and body.
func (r *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // Only read.
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// wait returns the exit code.
func (r *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case err := <-r.done:
		t.Logf("the process ended: %v", err)
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		t.Fatal("the process does not end")
		return -1
	}
}

func copyFS(t *testing.T, dir string, from fs.FS) {
	t.Helper()
	if err := os.CopyFS(dir, from); err != nil {
		t.Fatal(err)
	}
}

// TestStaticSite stages and runs the static sample app with the bundle's own programs, as whoever runs the test.
func TestStaticSite(t *testing.T) {
	zipFile, err := bundle.StaticBuildpack(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, bundle.SampleStaticApp(), "static", zipFile)
	if err := os.Symlink("/etc/passwd", s.path("app", "public", "passwd")); err != nil {
		t.Fatal(err)
	}
	s.lifecycle(t, bundle.BuildpackLifecycle())
	if out := s.stage(t, "static"); !strings.Contains(out, "Serving 2 files from public") {
		t.Errorf("builder said:\n%s", out)
	}
	r := s.launch(t, "")
	for _, row := range []struct {
		promise, path string
		status        int
		body          string
	}{
		{"the index", "/", 200, "It is served."},
		{"a file", "/style.css?x=1", 200, "sans-serif"},
		{"nothing else", "/nothing", 404, "Not found"},
		{"no escape by dots", "/%2e%2e/staging_info.yml", 404, "Not found"},
		{"no escape by a link", "/passwd", 404, "Not found"},
		{"no hidden files", "/.profile", 404, "Not found"},
	} {
		status, body := r.get(t, row.path)
		if status != row.status || !strings.Contains(body, row.body) {
			t.Errorf("%s: GET %s: %d %q", row.promise, row.path, status, body)
		}
	}
	r.await(t, regexp.MustCompile(`GET /style.css\?x=1 200`))
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(t); code != 0 {
		t.Errorf("stopped with exit code %d", code)
	}
}

// TestDockerLifecycle: the bundle's builder and launcher know that they are the Docker lifecycle's.
func TestDockerLifecycle(t *testing.T) {
	s := &site{dir: t.TempDir(), env: []string{"PATH=" + os.Getenv("PATH")}}
	s.lifecycle(t, bundle.DockerLifecycle())
	out, err := s.command(t.Context(), s.path("lifecycle", "launcher"), "app", "", `{"cmd":["echo","from an image"]}`).Output()
	if err != nil || string(out) != "from an image\n" {
		t.Errorf("launcher: %q, %v", out, err)
	}
	cmd := s.command(t.Context(), s.path("lifecycle", "builder"), "-outputMetadataJSONFilename", s.path("result.json"), "-dockerRef", "127.0.0.1:1/none")
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(text), "Attempt 3 of 4") {
		t.Errorf("builder: %v\n%s", err, text)
	}
}

// whoAmI is what the Node sample app answers.
type whoAmI struct {
	InstanceIndex int    `json:"instance_index"`
	InstanceGUID  string `json:"instance_guid"`
	UID           int    `json:"uid"`
	MS            string `json:"ms"`
	Node          string `json:"node"`
}

// checkNode talks to the Node sample app until it ends.
func checkNode(t *testing.T, r *running, uid int) {
	t.Helper()
	status, body := r.get(t, "/")
	var got whoAmI
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("GET /: %d %q: %v", status, body, err)
	}
	want := whoAmI{InstanceIndex: 1, InstanceGUID: "guid-1", UID: uid, MS: "2.1.3", Node: got.Node}
	if got != want || !strings.HasPrefix(got.Node, "v") {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if status, body := r.get(t, "/health"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("GET /health: %d %q", status, body)
	}
	r.await(t, regexp.MustCompile(`GET /health from`))
	if status, body := r.get(t, "/exit?code=7"); status != http.StatusOK {
		t.Errorf("GET /exit: %d %q", status, body)
	}
	if code := r.wait(t); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
}

func ExampleSampleNodeApp() {
	text, err := fs.ReadFile(bundle.SampleNodeApp(), "package.json")
	fmt.Println(strings.Contains(string(text), `"ms"`), err)
	// Output: true <nil>
}
