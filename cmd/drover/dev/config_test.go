package dev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/bridge/mtls"

	"github.com/google/go-cmp/cmp"
)

func TestConfig_WithDefaults(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("DROVER_DEV", "")
	config, err := Config{StackRootFS: "stack.tgz"}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if config.Dir != filepath.Join(home, ".drover/dev") || config.Cache != filepath.Join(home, ".cache/drover") || !filepath.IsAbs(config.StackRootFS) {
		t.Errorf("got %+v", config)
	}
	t.Setenv("DROVER_DEV", "/elsewhere")
	if config, err = (Config{}).WithDefaults(); err != nil || config.Dir != "/elsewhere" {
		t.Errorf("DROVER_DEV gave %s, %v", config.Dir, err)
	}
	if _, err := (Config{StackImage: "i", StackRootFS: "/r"}).WithDefaults(); err == nil {
		t.Error("two stacks were taken")
	}
}

func TestConfig_tasksDir(t *testing.T) {
	private := t.TempDir()
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(private, "home", "dev")
	if got := (Config{Dir: dir}).tasksDir(); !strings.HasPrefix(got, "/var/lib/drover/dev-") {
		t.Errorf("below a private directory: %s", got)
	}
	if got := (Config{Dir: "/dev0"}).tasksDir(); got != "/dev0/cell/state" {
		t.Errorf("where everybody may pass: %s", got)
	}
}

func TestInfo(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "drover dev") {
		t.Errorf("nothing runs, got %v", err)
	}
	info := Info{Dir: dir, Nomad: "http://127.0.0.1:1", TLS: mtls.Files{CA: "a"}, Registry: "172.30.0.1:5000"}
	if err := info.write(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(info, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	stat, err := os.Stat(filepath.Join(dir, infoFile))
	if err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", stat.Mode(), err)
	}
}

func TestStop_takesEverythingBackInReverse(t *testing.T) {
	var order []string
	down := func(name string, err error) func(context.Context) error {
		return func(context.Context) error {
			order = append(order, name)
			return err
		}
	}
	broken := errors.New("broken")
	p := &Platform{undo: []func(context.Context) error{down("first", nil), down("second", broken), down("third", nil)}}
	if err := p.Stop(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"third", "second", "first"}, order); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := p.Stop(t.Context()); err != nil || len(order) != 3 {
		t.Errorf("a second stop did %v, %v", order, err)
	}
}

func TestServe_tellsOfAServiceThatEnds(t *testing.T) {
	p := &Platform{failed: make(chan error, 1)}
	broken := errors.New("port taken")
	down := p.serve(t.Context(), "registry", func(context.Context) error { return broken })
	if err := p.Wait(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "registry") {
		t.Errorf("got %v", err)
	}
	if err := down(t.Context()); !errors.Is(err, broken) {
		t.Errorf("its end gave %v", err)
	}
	down = p.serve(t.Context(), "bridge", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if err := down(t.Context()); err != nil {
		t.Errorf("a proper end gave %v", err)
	}
}

func TestAgentsOf(t *testing.T) {
	if pids := agentsOf(t.TempDir()); len(pids) != 0 {
		t.Errorf("agents of an empty directory: %v", pids)
	}
}

func TestIsAgent(t *testing.T) {
	for _, row := range []struct {
		promise string
		command []string
		want    bool
	}{
		{"its Nomad", []string{"/cache/nomad-1.11.3", "agent", "-config", "/dev/x/agents/nomad.hcl"}, true},
		{"its Consul", []string{"/cache/consul-1.22.2", "agent", "-config-file", "/dev/x/agents/consul.json"}, true},
		{"its plugin", []string{"/dev/x/cell/plugins/nomad-driver-drover"}, true},
		{"another's Nomad", []string{"/cache/nomad-1.11.3", "agent", "-config", "/dev/y/agents/nomad.hcl"}, false},
		{"another's plugin", []string{"/dev/y/cell/plugins/nomad-driver-drover"}, false},
		{"a person's editor", []string{"vi", "/dev/x/agents/nomad.hcl"}, false},
		{"a kernel thread", []string{""}, false},
	} {
		if got := isAgent("/dev/x", row.command); got != row.want {
			t.Errorf("%s: %v", row.promise, got)
		}
	}
}
