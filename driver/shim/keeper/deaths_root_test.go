//go:build root

package keeper_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// asPlugin makes the test binary start a container, say so, and wait to be killed, as a plugin is.
const asPlugin = "DROVER_TEST_PLUGIN"

// TestMain's helper: the plugin that dies.
func plugin(dir string) {
	var wish driver.Container
	raw, err := os.ReadFile(filepath.Join(dir, "wish.json"))
	if err == nil {
		err = json.Unmarshal(raw, &wish)
	}
	if err == nil {
		_, err = shim.Start(context.Background(), os.Getenv(asPlugin), filepath.Join(dir, "task"), wish)
	}
	_, _ = fmt.Fprintln(os.Stdout, "started:", err)
	select {}
}

func ownerOf(info os.FileInfo) uint32 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Uid
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
}

// signalShim signals the container's shim, and returns its number.
func (b *box) signalShim(sig syscall.Signal) int {
	b.t.Helper()
	var id struct {
		PID int `json:"pid"`
	}
	raw, err := os.ReadFile(filepath.Join(b.dir, "shim.json"))
	if err == nil {
		err = json.Unmarshal(raw, &id)
	}
	if err == nil {
		err = syscall.Kill(id.PID, sig)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return id.PID
}

// killShim kills the container's shim, and waits until it has gone.
func (b *box) killShim() {
	b.t.Helper()
	pid := b.signalShim(syscall.SIGKILL)
	eventually(b.t, func() (bool, string) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z "), string(stat)
	})
}

func TestShim_survivesPoliteSignals(t *testing.T) {
	b := newBox(t, "trap").start()
	b.sees(b.out, "ready")
	b.signalShim(syscall.SIGTERM)
	b.signalShim(syscall.SIGHUP)
	if text := b.exec("echo", "still", "here"); text != "still here\n" {
		t.Errorf("exec says %q", text)
	}
	if err := b.client.Signal(t.Context(), "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestShimDeath_goesOn(t *testing.T) {
	b := newBox(t, "then", "--", "trap", "--", "exit", "9").start()
	b.sees(b.out, "ready")
	b.killShim()
	if !b.client.Running() {
		t.Fatal("the container has died with its shim")
	}
	if text := b.exec("echo", "still", "here"); text != "still here\n" {
		t.Errorf("exec says %q", text)
	}
	if meter, err := b.client.Meter(); err != nil {
		t.Errorf("meter: %v", err)
	} else {
		meter.Close()
	}
	// Its main process is process 1, whose child waits for the signal.
	fresh, err := shim.Connect(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fresh.Close() }()
	b.exec("then", "--", "echo", "x")
	signalChildren(t, b.client.InitPID())
	exit, err := fresh.Wait(t.Context())
	if err != nil || exit.Code != 9 {
		t.Errorf("exit %+v, error %v", exit, err)
	}
	if exit := b.wait(); exit.Code != 9 {
		t.Errorf("the second who asks is told %+v", exit)
	}
}

func TestShimDeath_stop(t *testing.T) {
	b := newBox(t, "trap").start()
	b.sees(b.out, "ready")
	b.killShim()
	if err := b.client.Stop(t.Context(), "SIGTERM", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestShimDeath_stopKills(t *testing.T) {
	b := newBox(t, "sigignore").start()
	b.sees(b.out, "ready")
	b.killShim()
	if err := b.client.Stop(t.Context(), "SIGTERM", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(); exit.Code != 137 || exit.Signal != 9 || exit.OOMKilled {
		t.Errorf("exit is %+v", exit)
	}
}

func TestShimDeath_destroy(t *testing.T) {
	b := newBox(t, "fork", "3").start()
	b.sees(b.out, "started 3")
	b.killShim()
	if err := shim.Destroy(t.Context(), b.dir); err != nil {
		t.Fatal(err)
	}
	b.nothingLeft()
}

func TestShimDeath_unseenExit(t *testing.T) {
	b := newBox(t, "sigignore").start()
	b.sees(b.out, "ready")
	b.killShim()
	if err := syscall.Kill(b.client.InitPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) { return !b.client.Running(), "it runs" })
	late, err := shim.Connect(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Wait(t.Context()); !errors.Is(err, shim.ErrExitUnknown) {
		t.Errorf("error is %v", err)
	}
}

// signalChildren sends SIGTERM to a process's children.
func signalChildren(t *testing.T, pid int) {
	t.Helper()
	found := 0
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(text)) {
			var n int
			if _, err := fmt.Sscan(child, &n); err == nil && syscall.Kill(n, syscall.SIGTERM) == nil {
				found++
			}
		}
	}
	if found == 0 {
		t.Fatalf("process %d has no children", pid)
	}
}

func TestPluginDeath(t *testing.T) {
	b := newBox(t, "then", "--", "trap", "--", "exit", "5")
	dir := filepath.Dir(b.dir)
	raw, err := json.Marshal(b.wish)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "wish.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), asPlugin+"="+program)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.destroy)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "started: <nil>\n" {
		t.Fatalf("plugin says %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	b.sees(b.out, "ready")
	if b.client, err = shim.Connect(b.dir); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.client.Close() }()
	if !b.client.Running() {
		t.Fatal("the container died with the plugin")
	}
	signalChildren(t, b.client.InitPID())
	if exit := b.wait(); exit.Code != 5 {
		t.Errorf("exit is %+v", exit)
	}
	again, err := shim.Connect(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if exit, err := again.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Errorf("later: %+v, %v", exit, err)
	}
}
