//go:build root

package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func newGroup(t *testing.T) Group {
	t.Helper()
	g, err := At("/drover-test/" + filepath.Base(t.TempDir()) + t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		g.RemoveParent()
	})
	return g
}

func sleeper(t *testing.T, g Group) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := g.Join(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestKill(t *testing.T) {
	g := newGroup(t)
	first, second := sleeper(t, g), sleeper(t, g)
	pids, err := g.PIDs()
	if err != nil || len(pids) != 2 {
		t.Fatalf("pids are %v, %v", pids, err)
	}
	go func() { _ = first.Wait() }()
	go func() { _ = second.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := g.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.RemoveSoon(ctx); err != nil {
		t.Fatal(err)
	}
	if dirs := g.Dirs(); len(dirs) != 0 {
		t.Errorf("left: %v", dirs)
	}
	if err := errors.Join(g.Kill(ctx), g.Remove()); err != nil {
		t.Errorf("killing and removing nothing: %v", err)
	}
}

func TestKill_refusesItself(t *testing.T) {
	g := newGroup(t)
	cmd := sleeper(t, g)
	if err := g.Signal(0, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if g.holds(1) || g.holds(os.Getpid()) || !g.holds(cmd.Process.Pid) {
		t.Error("the group does not know its members")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestMeter_endsWithTheGroup(t *testing.T) {
	g := newGroup(t)
	cmd := sleeper(t, g)
	m, err := g.Meter()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Read(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := g.RemoveSoon(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
