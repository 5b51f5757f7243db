//go:build root

package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/shim"
)

func TestExit(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want driver.Exit
	}{
		{"tells the exit code", []string{"exit", "7"}, driver.Exit{Code: 7}},
		{"tells success", []string{"echo", "hello"}, driver.Exit{}},
		{"tells that memory ran out", []string{"mem", "400"}, driver.Exit{Code: 137, Signal: 9, OOMKilled: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, test.args...).start()
			exit := b.wait()
			if exit.Started.IsZero() || exit.Ended.Before(exit.Started) {
				t.Errorf("times are wrong: %+v", exit)
			}
			exit.Started, exit.Ended = time.Time{}, time.Time{}
			if exit != test.want {
				t.Errorf("exit is %+v, want %+v", exit, test.want)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	b := newBox(t, "trap").start()
	b.sees(b.out, "ready")
	if err := b.client.Signal(t.Context(), "HUP"); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
	b.sees(b.out, "got SIGHUP")
	if err := b.client.Signal(t.Context(), "SIGBANANA"); err == nil {
		t.Error("an unknown signal is taken")
	}
}

func TestSignal_killIsNoWantOfMemory(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	if err := b.client.Signal(t.Context(), "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(); exit.Code != 137 || exit.Signal != 9 || exit.OOMKilled {
		t.Errorf("exit is %+v", exit)
	}
}

func TestStop(t *testing.T) {
	for _, test := range []struct {
		name    string
		args    []string
		ready   string
		timeout time.Duration
		code    int
		atLeast time.Duration
	}{
		{"ends a task that listens", []string{"trap"}, "ready", 20 * time.Second, 0, 0},
		{"kills a task that ignores the signal", []string{"sigignore"}, "ready", 300 * time.Millisecond, 137, 300 * time.Millisecond},
		{"kills at once when there is no time", []string{"sigignore"}, "ready", 0, 137, 0},
		{"takes along what a task left running", []string{"fork", "5"}, "started 5", 5 * time.Second, 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, test.args...).start()
			b.sees(b.out, test.ready)
			begin := time.Now()
			if err := b.client.Stop(t.Context(), "SIGTERM", test.timeout); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took < test.atLeast || took > 10*time.Second {
				t.Errorf("stop took %s", took)
			}
			if b.client.Running() {
				t.Error("process 1 runs after stop has returned")
			}
			if exit := b.wait(); exit.Code != test.code {
				t.Errorf("exit is %+v, want code %d", exit, test.code)
			}
			if err := b.client.Stop(t.Context(), "SIGTERM", test.timeout); err != nil {
				t.Errorf("stopping what has ended: %v", err)
			}
		})
	}
}

func TestExec(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Process.Env = []string{"OF=task", "SHARED=task"}
	b.start()
	var out, errs bytes.Buffer
	exit, err := b.client.Exec(t.Context(), shim.ExecRequest{
		Process: driver.Process{
			Args: []string{"/bin/probe", "then", "--", "cat", "--", "err", "oops", "--", "id", "--", "env", "--", "exit", "43"},
			Env:  []string{"SHARED=exec"},
		},
		Stdin: strings.NewReader("from stdin\n"), Stdout: &out, Stderr: &errs,
	})
	if err != nil || exit.Code != 43 {
		t.Fatalf("exit %+v, error %v", exit, err)
	}
	for _, want := range []string{"from stdin\n", "2000", "/home/vcap", "OF=task\n", "SHARED=exec\n", "HOME=/home/vcap\n", "USER=vcap\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in output:\n%s", want, &out)
		}
	}
	if errs.String() != "oops\n" {
		t.Errorf("stderr is %q", &errs)
	}
}

func TestExec_asAnotherUser(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	for user, want := range map[string]string{"root": "0", "1234:55": "1234", "vcap:extra": "2000"} {
		var out bytes.Buffer
		_, err := b.client.Exec(t.Context(), shim.ExecRequest{
			Process: driver.Process{Args: []string{"/bin/probe", "id"}, User: user, Dir: "/"}, Stdout: &out,
		})
		if err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v, %s", user, err, &out)
		}
	}
	_, err := b.client.Exec(t.Context(), shim.ExecRequest{Process: driver.Process{Args: []string{"/bin/probe", "id"}, User: "stranger"}})
	if err == nil || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("error is %v", err)
	}
	_, err = b.client.Exec(t.Context(), shim.ExecRequest{Process: driver.Process{Args: []string{"missing-program"}}})
	if err == nil || !strings.Contains(err.Error(), "missing-program") {
		t.Errorf("error is %v", err)
	}
}

func TestExec_onTerminal(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	sizes := make(chan [2]uint16, 1)
	sizes <- [2]uint16{100, 40}
	var out bytes.Buffer
	exit, err := b.client.Exec(t.Context(), shim.ExecRequest{
		Process: driver.Process{Args: []string{"/bin/probe", "stty"}}, TTY: true, Stdout: &out, Resize: sizes,
	})
	if err != nil || exit.Code != 0 || !strings.Contains(out.String(), "100") || !strings.Contains(out.String(), "40") {
		t.Errorf("exit %+v, error %v, output %q", exit, err, &out)
	}
}

func TestExec_terminalIsResized(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	sizes := make(chan [2]uint16)
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }()
	var out output
	ended := make(chan error, 1)
	go func() {
		_, err := b.client.Exec(t.Context(), shim.ExecRequest{
			Process: driver.Process{Args: []string{"/bin/probe", "then", "--", "trap", "--", "stty"}},
			TTY:     true, Stdin: reader, Stdout: &out, Resize: sizes,
		})
		ended <- err
	}()
	b.sees(&out, "ready")
	sizes <- [2]uint16{121, 43}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "SIGWINCH") || !strings.Contains(text, "121") {
		t.Errorf("output is %q", text)
	}
}

func TestExec_endsWithItsCaller(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	ctx, cancel := context.WithCancel(t.Context())
	var out output
	ended := make(chan error, 1)
	go func() {
		_, err := b.client.Exec(ctx, shim.ExecRequest{Process: driver.Process{Args: []string{"/bin/probe", "sigignore"}}, Stdout: &out})
		ended <- err
	}()
	b.sees(&out, "ready")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	eventually(t, func() (bool, string) {
		text := b.exec("ls", "/proc")
		return strings.Count(text, "\n") > 0 && !strings.Contains(b.exec("cat", "/proc/1/cmdline"), "sigignore") && processes(text) <= 2, text
	})
}

// processes counts the processes in a listing of /proc.
func processes(listing string) int {
	n := 0
	for line := range strings.Lines(listing) {
		if _, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			n++
		}
	}
	return n
}

func TestStats(t *testing.T) {
	b := newBox(t, "mem", "40").start()
	b.sees(b.out, "allocated 40")
	meter, err := b.client.Meter()
	if err != nil {
		t.Fatal(err)
	}
	defer meter.Close()
	stats, err := meter.Read()
	if err != nil {
		t.Fatal(err)
	}
	if stats.MemoryRSS < 40<<20 || stats.MemoryUsage < stats.MemoryRSS || stats.MemoryMax < stats.MemoryUsage || stats.CPUTotal == 0 {
		t.Errorf("stats are %+v", stats)
	}
}

func TestStart_tellsWhyNot(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*driver.Container)
		want   string
	}{
		{"a missing program", func(c *driver.Container) { c.Process.Args = []string{"/bin/missing"} }, "/bin/missing"},
		{"an unknown user", func(c *driver.Container) { c.Process.User = "stranger" }, "stranger"},
		{"no command", func(c *driver.Container) { c.Process.Args = nil }, "no command"},
		{"a missing layer", func(c *driver.Container) { c.RootFS.Layers[0].Dir = "/missing/layer" }, "/missing/layer"},
		{"a missing network namespace", func(c *driver.Container) { c.NetNS = "/missing/netns" }, "/missing/netns"},
		{"a log that is no fifo", func(c *driver.Container) { c.Stdout = "/proc/self/status" }, "/proc/self/status"},
		{"a mount of something missing", func(c *driver.Container) {
			c.Mounts = []driver.Mount{{Source: "/missing/source", Target: "/mnt"}}
		}, "/missing/source"},
		{"an id that is a path", func(c *driver.Container) { c.ID = "../up" }, "../up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, "sleep", "60")
			test.change(&b.wish)
			_, err := shim.Start(t.Context(), program, b.dir, b.wish)
			t.Cleanup(b.destroy)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one that names %q", err, test.want)
			}
		})
	}
}

func TestDestroy_leavesNothing(t *testing.T) {
	b := newBox(t, "fork", "5").start()
	b.sees(b.out, "started 5")
	pid := b.client.InitPID()
	for range 2 { // and again, of nothing
		if err := shim.Destroy(t.Context(), b.dir); err != nil {
			t.Fatal(err)
		}
	}
	if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("process 1 lives: %s", stat)
	}
	if _, err := os.Lstat(b.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	b.nothingLeft()
	if _, err := shim.Connect(b.dir); !errors.Is(err, shim.ErrGone) {
		t.Errorf("connecting: %v", err)
	}
}

// nothingLeft fails when a mount, a cgroup or a process of the container is there.
func (b *box) nothingLeft() {
	b.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Fatal(err)
	}
	if strings.Contains(string(mounts), b.dir) {
		b.t.Errorf("mounts are left:\n%s", mounts)
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && entry.Name() == b.wish.ID {
			b.t.Errorf("cgroup %s is left", path)
		}
		return nil // other tests' groups come and go
	})
	if err != nil {
		b.t.Fatal(err)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, path := range commands {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), b.dir) {
			b.t.Errorf("process %s is left: %q", path, text)
		}
	}
}
