package apparmor

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newHost makes a host with AppArmor and a parser that does what the shell line says; $PROFILES is the kernel's list.
func newHost(t *testing.T, enabled, parser string) *Host {
	t.Helper()
	root := t.TempDir()
	list := filepath.Join(root, "sys/kernel/security/apparmor/profiles")
	for path, text := range map[string]string{
		filepath.Join(root, "sys/module/apparmor/parameters/enabled"): enabled + "\n",
		list:                          "docker-default (enforce)\n/usr/bin/man (complain)\n",
		filepath.Join(root, "parser"): "#!/bin/sh\nPROFILES=" + list + "\n" + parser + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // one of them is executed
			t.Fatal(err)
		}
	}
	return &Host{Root: root, Parser: filepath.Join(root, "parser")}
}

// loads is a parser that takes every profile of its input.
const loads = `sed -n 's/^profile \([^ ]*\) .*/\1 (enforce)/p' >>$PROFILES; echo "$@" >>$PROFILES.calls`

func TestEnabled(t *testing.T) {
	for text, want := range map[string]bool{"Y": true, "N": false} {
		if got := newHost(t, text, "").Enabled(); got != want {
			t.Errorf("%s: enabled is %v", text, got)
		}
	}
	if (&Host{Root: t.TempDir()}).Enabled() {
		t.Error("a kernel without AppArmor has it enabled")
	}
}

func TestLoaded(t *testing.T) {
	host := newHost(t, "Y", "")
	for name, want := range map[string]bool{"docker-default": true, "/usr/bin/man": true, "docker": false, Profile: false, "": false} {
		if got, err := host.Loaded(name); got != want || err != nil {
			t.Errorf("%q: loaded is %v, %v", name, got, err)
		}
	}
	if _, err := (&Host{Root: t.TempDir()}).Loaded("x"); err == nil || !strings.Contains(err.Error(), "securityfs") {
		t.Errorf("error is %v", err)
	}
}

func TestEnsure(t *testing.T) {
	host := newHost(t, "Y", loads)
	calls := func() int {
		text, _ := os.ReadFile(host.path("sys/kernel/security/apparmor/profiles.calls")) // missing before the first
		return strings.Count(string(text), "--replace")
	}
	for range 2 {
		if err := host.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if calls() != 1 {
		t.Errorf("it was loaded %d times", calls())
	}
	if loaded, err := host.Loaded(Profile); !loaded || err != nil {
		t.Errorf("the kernel has it: %v, %v", loaded, err)
	}
	// Somebody removed it.
	if err := os.WriteFile(host.path("sys/kernel/security/apparmor/profiles"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := host.Ensure(t.Context()); err != nil || calls() != 2 {
		t.Errorf("after it was removed: %v, loaded %d times", err, calls())
	}
	// A new process has perhaps a newer text.
	if err := (&Host{Root: host.Root, Parser: host.Parser}).Ensure(t.Context()); err != nil || calls() != 3 {
		t.Errorf("by a new process: %v, loaded %d times", err, calls())
	}
}

func TestEnsure_errors(t *testing.T) {
	if err := newHost(t, "Y", "echo syntax error at line 7; exit 1").Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("error is %v", err)
	}
	if err := newHost(t, "Y", "exit 0").Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "no profile drover-default") {
		t.Errorf("error is %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	host := newHost(t, "Y", "")
	host.Parser = ""
	if _, err := os.Stat("/sbin/apparmor_parser"); err == nil {
		t.Skip("this host has a parser")
	}
	if err := host.Ensure(t.Context()); !errors.Is(err, ErrNoParser) {
		t.Errorf("error is %v", err)
	}
}

// The parser of this machine, if there is one, understands the profile.
func TestProfile_compiles(t *testing.T) {
	parser, err := findParser()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), parser, "--skip-kernel-load", "--skip-cache")
	cmd.Stdin = bytes.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
