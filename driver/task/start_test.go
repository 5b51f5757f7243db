package task

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover/driver"
	"drover/driver/image"
)

func TestRun_undoesInReverse(t *testing.T) {
	var did []string
	note := func(what string, err error) func(context.Context) error {
		return func(context.Context) error { did = append(did, what); return err }
	}
	undo := func(what string, err error) func() error {
		return func() error { did = append(did, "undo "+what); return err }
	}
	var log bytes.Buffer
	s := &start{m: &Manager{log: slog.New(slog.NewTextHandler(&log, nil))}}
	cause := errors.New("no")
	err := s.run(t.Context(), []step{
		{name: "a", do: note("a", nil), undo: undo("a", nil)},
		{name: "b", do: note("b", nil)},
		{name: "c", do: note("c", nil), undo: undo("c", errors.New("stuck"))},
		{name: "d", do: note("d", cause), undo: undo("d", nil)},
		{name: "e", do: note("e", nil), undo: undo("e", nil)},
	})
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want that of the step that failed", err)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "undo d", "undo c", "undo a"}, did); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(log.String(), "step=c") || !strings.Contains(log.String(), "stuck") {
		t.Errorf("the log does not say what was left: %s", log.String())
	}
}

func TestReadRunInfo(t *testing.T) {
	write := func(t *testing.T, dir, text string) {
		t.Helper()
		path := filepath.Join(dir, driver.RunInfoFile)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("reads what the template rendered", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "text")
		if got, err := readRunInfo(dir); err != nil || string(got) != "text" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("says who should have made it", func(t *testing.T) {
		if _, err := readRunInfo(t.TempDir()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "template") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("follows no link out of the task's directory", func(t *testing.T) {
		dir, elsewhere := t.TempDir(), t.TempDir()
		write(t, elsewhere, "secret")
		if err := os.Symlink(filepath.Join(elsewhere, "private"), filepath.Join(dir, "private")); err != nil {
			t.Fatal(err)
		}
		if got, err := readRunInfo(dir); err == nil {
			t.Errorf("read %q through a link", got)
		}
	})
}

func TestPullContext(t *testing.T) {
	t.Run("ends by the operator's timeout, which may be better next time", func(t *testing.T) {
		m := &Manager{node: Config{PullTimeout: time.Millisecond}}
		ctx, cancel := m.pullContext(t.Context(), t.TempDir(), 0)
		defer cancel()
		<-ctx.Done()
		err := m.pullError(ctx, "image a/b", ctx.Err())
		if !Temporary(err) || !strings.Contains(err.Error(), "image a/b: took longer than image_pull_timeout, an option of the task and of the plugin, allows (1ms)") {
			t.Errorf("error %v, temporary %v", err, Temporary(err))
		}
	})
	t.Run("tells a fault of the network from one of the job", func(t *testing.T) {
		m := &Manager{node: Config{PullTimeout: time.Hour}}
		ctx, cancel := m.pullContext(t.Context(), t.TempDir(), 0)
		defer cancel()
		if err := m.pullError(ctx, "x", image.ErrUnreachable); !Temporary(err) || !errors.Is(err, image.ErrUnreachable) {
			t.Errorf("unreachable: %v, temporary %v", err, Temporary(err))
		}
		if err := m.pullError(ctx, "x", image.ErrChecksum); Temporary(err) || !errors.Is(err, image.ErrChecksum) {
			t.Errorf("wrong checksum: %v, temporary %v", err, Temporary(err))
		}
	})
}

func TestDescribeProgress(t *testing.T) {
	for want, p := range map[string]image.Progress{
		"25% of 40.0 MB, 5.0 MB/s, about 6s left":               {Done: 10e6, Total: 40e6},
		"3/9 layers, 45% of 120.0 MB, 27.0 MB/s, about 2s left": {Done: 54e6, Total: 120e6, LayersDone: 3, Layers: 9},
		"9/9 layers, 100% of 10.0 MB, 5.0 MB/s":                 {Done: 10e6, Total: 10e6, LayersDone: 9, Layers: 9},
		"10.0 MB so far, 5.0 MB/s":                              {Done: 10e6},
	} {
		if got := describeProgress(p, 2*time.Second); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWarnIgnored_saysEachFieldOnce(t *testing.T) {
	var log bytes.Buffer
	m := &Manager{log: slog.New(slog.NewTextHandler(&log, nil))}
	m.warnIgnored("first", []string{"disk_mb", "privileged"})
	m.warnIgnored("second", []string{"disk_mb", "sidecars"})
	if got := strings.Count(log.String(), "\n"); got != 3 {
		t.Errorf("%d lines, want 3:\n%s", got, log.String())
	}
}

// An unknown task is told as such by everything that needs one, and is no error for Destroy.
func TestManager_unknownTask(t *testing.T) {
	dir := t.TempDir()
	node := testNode()
	node.StateDir, node.ImageDir = filepath.Join(dir, "state"), filepath.Join(dir, "images")
	m := New(t.Context(), node, func(Event) {}, slog.New(slog.DiscardHandler))
	_, waitErr := m.Wait(t.Context(), "x")
	_, _, inspectErr := m.Inspect(t.Context(), "x")
	for name, err := range map[string]error{
		"wait": waitErr, "inspect": inspectErr, "stop": m.Stop(t.Context(), "x", 0, ""), "signal": m.Signal(t.Context(), "x", "HUP"),
		"recover": m.Recover(Record{TaskID: "x", ContainerID: "t-x"}),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: error %v, want %v", name, err, ErrNotFound)
		}
	}
	if err := m.Destroy(t.Context(), "x", true); err != nil {
		t.Errorf("destroy: %v", err)
	}
}
