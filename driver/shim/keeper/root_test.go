//go:build root

package keeper_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/shim"
)

// program is the shim's executable, built once.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) != "" {
		plugin(os.Args[1])
	}
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		panic(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "drover-shim")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-tags=seccomp,osusergo,netgo,static_build",
		"-ldflags=-s -w -linkmode=external -extldflags=-static", "-o", program, "drover/cmd/drover-shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build shim: %v\n%s", err, out))
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// serial makes ids and id ranges differ between the containers of one run.
var serial atomic.Uint32

// box is a container in a test.
type box struct {
	t      *testing.T
	dir    string
	wish   driver.Container
	client *shim.Client
	out    *output
	errs   *output
}

// newBox prepares a container of the test's root file system, in a user namespace, with fifos for its output.
func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	n := serial.Add(1)
	logs := filepath.Join(t.TempDir(), "alloc", "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: filepath.Join(t.TempDir(), "task")}
	b.out, b.errs = newOutput(t, filepath.Join(logs, "out.fifo")), newOutput(t, filepath.Join(logs, "err.fifo"))
	if err := os.Chmod(filepath.Dir(filepath.Dir(b.dir)), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(b.dir), 0o711); err != nil {
		t.Fatal(err)
	}
	b.wish = driver.Container{
		ID:       fmt.Sprintf("test-%d-%d", os.Getpid(), n),
		Hostname: "box",
		RootFS:   driver.RootFS{Layers: drivertest.RootFS(t)},
		IDs:      driver.IDRange{Host: 1_000_000 + n*65536, Size: 65536},
		Limits:   driver.Limits{MemoryBytes: 128 << 20, PIDs: 64, CPUShares: 100},
		Stdout:   b.out.path,
		Stderr:   b.errs.path,
		Filters:  filepath.Join(filepath.Dir(program), "filters"),
		Process:  driver.Process{Args: append([]string{"/bin/probe"}, args...), User: "vcap"},
	}
	return b
}

// start starts the container, and destroys it when the test ends.
func (b *box) start() *box {
	b.t.Helper()
	client, err := shim.Start(b.t.Context(), program, b.dir, b.wish)
	b.t.Cleanup(func() { b.destroy() })
	if err != nil {
		b.t.Fatalf("start: %v", err)
	}
	b.client = client
	b.t.Cleanup(func() { _ = client.Close() })
	return b
}

func (b *box) destroy() {
	b.t.Helper()
	if b.t.Failed() {
		text, _ := os.ReadFile(filepath.Join(b.dir, "shim.log"))
		b.t.Logf("shim.log:\n%s", text)
	}
	if err := shim.Destroy(context.Background(), b.dir); err != nil {
		b.t.Errorf("destroy: %v", err)
	}
}

// wait returns how the container ended.
func (b *box) wait() driver.Exit {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	exit, err := b.client.Wait(ctx)
	if err != nil {
		b.t.Fatalf("wait: %v", err)
	}
	return exit
}

// exec runs a command in the container and returns its output.
func (b *box) exec(args ...string) string {
	b.t.Helper()
	var out bytes.Buffer
	exit, err := b.client.Exec(b.t.Context(), shim.ExecRequest{
		Process: driver.Process{Args: append([]string{"/bin/probe"}, args...)}, Stdout: &out, Stderr: &out,
	})
	if err != nil || exit.Code != 0 {
		b.t.Fatalf("exec %q: exit %+v, error %v, output %s", args, exit, err, &out)
	}
	return out.String()
}

// output collects what comes out of a fifo, as Nomad's log collector does.
type output struct {
	path string
	mu   sync.Mutex
	text bytes.Buffer
	done chan struct{}
}

func newOutput(t *testing.T, path string) *output {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	o := &output{path: path, done: make(chan struct{})}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	reader := os.NewFile(uintptr(fd), path)
	hold, err := os.OpenFile(path, os.O_WRONLY, 0) // a reader of an unwritten fifo sees its end at once
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hold.Close()
		<-o.done
	})
	go func() {
		defer close(o.done)
		defer func() { _ = reader.Close() }()
		_, _ = io.Copy(o, reader)
	}()
	return o
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// sees waits until a text has come out.
func (b *box) sees(o *output, want string) {
	b.t.Helper()
	eventually(b.t, func() (bool, string) { return strings.Contains(o.String(), want), o.String() })
}

// eventually waits for a condition, and tells what was seen last when it does not come.
func eventually(t *testing.T, holds func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, seen := holds()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain; seen last: %s", seen)
		case <-tick.C:
		}
	}
}
