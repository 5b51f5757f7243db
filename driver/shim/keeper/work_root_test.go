//go:build root

package keeper_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// blobs is a server of downloads that takes uploads.
type blobs struct {
	*httptest.Server
	mu   sync.Mutex
	got  map[string][]byte
	head map[string]http.Header
}

func newBlobs(t *testing.T, files map[string][]byte) *blobs {
	t.Helper()
	b := &blobs{got: map[string][]byte{}, head: map[string]http.Header{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.got[r.URL.Path], b.head[r.URL.Path] = body, r.Header
			return
		}
		body, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(b.Close)
	return b
}

// tgz packs files, all owned by a stranger.
func tgz(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	out := tar.NewWriter(zip)
	for name, text := range files {
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Uid: 555, Gid: 555}); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// probe is an action that runs the probe as vcap.
func probe(source string, args ...string) *models.RunAction {
	return &models.RunAction{Path: "/bin/probe", Args: args, User: "vcap", LogSource: source}
}

// taskBox is a container that runs a Task.
func taskBox(t *testing.T, task models.TaskDefinition) *box {
	t.Helper()
	raw, err := task.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	b.wish.Process = driver.Process{}
	b.wish.Work = &driver.Work{
		Info: driver.RunInfo{Kind: driver.KindTask, GUID: "task-guid", Definition: raw},
		Env:  []string{"WHO=image", "LANG=C"}, InstanceEnv: []string{"CF_INSTANCE_IP=192.0.2.7"},
	}
	return b
}

// lrpBox is a container that runs an LRP.
func lrpBox(t *testing.T, lrp models.DesiredLRP) *box {
	t.Helper()
	raw, err := lrp.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	b.wish.Process = driver.Process{}
	b.wish.Work = &driver.Work{Info: driver.RunInfo{Kind: driver.KindLRP, GUID: "process-guid", Definition: raw}}
	return b
}

// phases collects the phases of the container's events, until the last.
func (b *box) phases() []string {
	b.t.Helper()
	events, err := b.client.Events(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var phases []string
	for e := range events {
		if e.Annotations[driver.AnnotationPhase] != e.Phase {
			b.t.Errorf("annotations of %s are %v", e.Phase, e.Annotations)
		}
		phases = append(phases, e.Phase)
	}
	return phases
}

func TestTask_staging(t *testing.T) {
	droplet := tgz(t, map[string]string{"app/hello.txt": "hello from the droplet\n"})
	sum := sha256.Sum256(droplet)
	server := newBlobs(t, map[string][]byte{"/app": droplet})
	b := taskBox(t, models.TaskDefinition{
		ResultFile: "/tmp/result.json",
		LogSource:  "STG",
		Action: models.WrapAction(models.Timeout(models.Serial(
			models.Parallel(
				&models.DownloadAction{
					Artifact: "app package", From: server.URL + "/app?token=canary", To: ".", User: "vcap",
					ChecksumAlgorithm: "sha256", ChecksumValue: hex.EncodeToString(sum[:]),
				},
				models.Try(&models.DownloadAction{Artifact: "build artifacts cache", From: server.URL + "/missing", To: "/tmp/cache", User: "vcap"}),
			),
			models.EmitProgressFor(&models.RunAction{
				Path: "/bin/probe", User: "vcap", LogSource: "STG",
				Args: []string{
					"then", "--", "id", "--", "env", "--", "cat", "app/hello.txt", "--", "stat", "app/hello.txt", "--",
					"write", "/tmp/result.json", `{"ok":true}`, "--", "write", "/tmp/droplet", "the droplet",
				},
				Env: []*models.EnvironmentVariable{{Name: "WHO", Value: "action"}},
			}, "Staging...", "Staging complete", "Staging failed"),
			&models.UploadAction{Artifact: "droplet", From: "/tmp/droplet", To: server.URL + "/upload?secret=canary", User: "vcap"},
		), time.Minute)),
	}).start()
	exit := b.wait()
	if exit.Code != 0 || exit.Reason != "" || exit.Result != "{\"ok\":true}\n" {
		t.Fatalf("exit is %+v\n%s%s", exit, b.out, b.errs)
	}
	for _, want := range []string{
		"Downloading app package...", "Downloaded app package (", "Staging...", "Staging complete", "hello from the droplet",
		"WHO=action", "LANG=C", "CF_INSTANCE_IP=192.0.2.7", "HOME=/home/vcap", "2000", "Uploading droplet...", "Uploaded droplet (12B)",
	} {
		b.sees(b.out, want)
	}
	if got := string(server.got["/upload"]); got != "the droplet\n" {
		t.Errorf("uploaded %q", got)
	}
	head := server.head["/upload"]
	digest := sha256.Sum256([]byte("the droplet\n"))
	if head.Get("Content-Digest") != "sha-256=:"+base64.StdEncoding.EncodeToString(digest[:])+":" || head.Get("Content-Md5") == "" {
		t.Errorf("headers are %v", head)
	}
	if got, want := b.phases(), []string{driver.PhaseStarted, driver.PhaseEnded}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("phases are %v, want %v", got, want)
	}
	if again := b.phases(); len(again) != 0 {
		t.Errorf("events are given twice: %v", again)
	}
	if log := b.readLog(); strings.Contains(log, "canary") {
		t.Errorf("the log tells secrets:\n%s", log)
	}
}

func TestTask_failures(t *testing.T) {
	server := newBlobs(t, map[string][]byte{"/app": tgz(t, map[string]string{"a": "b"})})
	for _, test := range []struct {
		name   string
		action models.ActionInterface
		result string
		want   driver.Exit
	}{
		{"tells a builder's status with nothing behind it", probe("STG", "exit", "222"), "", driver.Exit{Code: 222, Reason: "STG: Exited with status 222"}},
		{"tells of memory", probe("APP", "mem", "400"), "", driver.Exit{Code: 137, Signal: 9, OOMKilled: true, Reason: "APP: Exited with status 137 (out of memory)"}},
		{"tells of a signal", probe("APP", "die", "SIGTERM"), "", driver.Exit{Code: 143, Signal: 15, Reason: "APP: Exited with status 143"}},
		{"ends what takes too long", models.Timeout(probe("APP", "sleep", "60"), 300*time.Millisecond), "", driver.Exit{Code: 1, Reason: "exceeded 300ms timeout"}},
		{
			"refuses a wrong checksum",
			&models.DownloadAction{Artifact: "droplet", From: server.URL + "/app", To: ".", User: "vcap", ChecksumAlgorithm: "sha1", ChecksumValue: "00"},
			"", driver.Exit{Code: 1, Reason: "Downloading droplet failed"},
		},
		{"misses a result", probe("APP", "echo"), "/tmp/none", driver.Exit{Code: 1, Reason: "failed to fetch result"}},
		{"takes no device for a result", probe("APP", "echo"), "/dev/zero", driver.Exit{Code: 1, Reason: "failed to fetch result"}},
		{"misses a program", &models.RunAction{Path: "/bin/none", User: "vcap", LogSource: "APP"}, "", driver.Exit{Code: 1, Reason: `APP: cannot run /bin/none: `}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := taskBox(t, models.TaskDefinition{Action: models.WrapAction(test.action), ResultFile: test.result}).start()
			exit := b.wait()
			exit.Started, exit.Ended = time.Time{}, time.Time{}
			if strings.HasSuffix(test.want.Reason, ": ") && strings.HasPrefix(exit.Reason, test.want.Reason) {
				exit.Reason = test.want.Reason
			}
			if exit != test.want {
				t.Errorf("exit is %+v, want %+v", exit, test.want)
			}
		})
	}
}

func TestLRP(t *testing.T) {
	port := freePort(t)
	b := lrpBox(t, models.DesiredLRP{
		LogSource: "CELL",
		Action: models.WrapAction(models.Codependent(
			probe("APP/PROC/WEB", "listen", port), probe("APP/PROC/WEB/SIDECAR/S", "sleep", "600"),
		)),
		CheckDefinition: &models.CheckDefinition{Checks: []*models.Check{
			{TcpCheck: &models.TCPCheck{Port: number(t, port)}}, {HttpCheck: &models.HTTPCheck{Port: number(t, port), Path: "/"}},
		}},
		StartTimeoutMs: 20_000,
	}).start()
	events, err := b.client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{driver.PhaseStarted, driver.PhaseHealthy} {
		if e := <-events; e.Phase != want {
			t.Fatalf("event is %+v, want %s", e, want)
		}
	}
	if text := b.exec("id"); !strings.Contains(text, "2000") {
		t.Errorf("exec is another user than the app: %s", text)
	}
	// The app says how it wants to end.
	address := net.JoinHostPort("127.0.0.1", port)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/exit/3", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request); err == nil {
		_ = response.Body.Close()
	}
	if exit := b.wait(); exit.Code != 3 || exit.Reason != "APP/PROC/WEB: Exited with status 3" {
		t.Errorf("exit is %+v", exit)
	}
	if e := <-events; e.Phase != driver.PhaseEnded || e.Annotations[driver.AnnotationReason] != "APP/PROC/WEB: Exited with status 3" {
		t.Errorf("event is %+v", e)
	}
	b.destroy()
	b.nothingLeft()
}

func TestLRP_neverHealthy(t *testing.T) {
	port := freePort(t)
	b := lrpBox(t, models.DesiredLRP{
		Action:          models.WrapAction(probe("APP/PROC/WEB", "sleep", "600")),
		CheckDefinition: &models.CheckDefinition{Checks: []*models.Check{{TcpCheck: &models.TCPCheck{Port: number(t, port)}}}},
		StartTimeoutMs:  700,
	}).start()
	exit := b.wait()
	if !strings.HasPrefix(exit.Reason, "Instance never healthy after ") || !strings.Contains(exit.Reason, "failed to make TCP connection to ") ||
		!strings.HasSuffix(exit.Reason, ":"+port+": connect: connection refused") {
		t.Errorf("reason is %q", exit.Reason)
	}
}

func TestLRP_stop(t *testing.T) {
	b := lrpBox(t, models.DesiredLRP{
		Action: models.WrapAction(models.Codependent(probe("APP", "trap"), probe("SIDE", "sigignore"))),
	}).start()
	b.sees(b.out, "ready\nready")
	begin := time.Now()
	if err := b.client.Stop(t.Context(), "SIGINT", 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 400*time.Millisecond || took > 8*time.Second {
		t.Errorf("stop took %s", took)
	}
	b.sees(b.out, "got SIGINT")
	if exit := b.wait(); exit.Reason != "" {
		t.Errorf("exit is %+v", exit)
	}
}

func TestLRP_shimDeath(t *testing.T) {
	b := lrpBox(t, models.DesiredLRP{Action: models.WrapAction(probe("APP", "trap"))}).start()
	b.sees(b.out, "ready")
	b.killShim()
	if !b.client.Running() {
		t.Fatal("the container has died with its shim")
	}
	if text := b.exec("echo", "still", "here"); text != "still here\n" {
		t.Errorf("exec says %q", text)
	}
	if err := b.client.Signal(t.Context(), "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	exit := b.wait() // the reaper sees that nobody is left, and ends
	if exit.Code == 0 || !strings.Contains(exit.Reason, "shim") {
		t.Errorf("exit is %+v", exit)
	}
}

func TestReaper_isSmall(t *testing.T) {
	b := lrpBox(t, models.DesiredLRP{Action: models.WrapAction(probe("APP", "sleep", "600"))}).start()
	text := b.exec("cat", "/proc/1/status")
	_, after, found := strings.Cut(text, "RssAnon:") // what is not of its own is the file, which all containers share
	if !found {
		t.Fatalf("no RssAnon in %s", text)
	}
	var kib int
	if _, err := fmt.Sscan(after, &kib); err != nil || kib > 512 {
		t.Errorf("process 1 takes %d KiB of its own, %v", kib, err)
	}
}

func (b *box) readLog() string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "shim.log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func number(t *testing.T, port string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
