package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/bridge/mtls"
)

// bridge runs `drover bridge` with arguments and returns what it printed.
func bridge(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newBridgeCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func bridgeConfig(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bridge.hcl")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// goodBridge is a configuration on free ports, for a Nomad that does not answer.
func goodBridge(t *testing.T) string {
	t.Helper()
	authority, err := mtls.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, err := authority.Issue(dir, "bridge", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return bridgeConfig(t, `
listen {
  bbs      = "127.0.0.1:0"
  files    = "127.0.0.1:0"
  uploader = "127.0.0.1:0"
}
tls {
  ca   = "`+files.CA+`"
  cert = "`+files.Cert+`"
  key  = "`+files.Key+`"
}
nomad {
  address = "http://127.0.0.1:1"
}
static_dir = "`+dir+`"
log_level  = "error"
`)
}

func TestBridge_checkSaysEverything(t *testing.T) {
	_, err := bridge(t, "--check", "--config", bridgeConfig(t, `
statik_dir = "/tmp"
listen { bbs = "8889" }
log_level = "loud"
`))
	if err == nil {
		t.Fatal("a bad configuration was accepted")
	}
	for _, want := range []string{`"statik_dir" is not expected here`, `listen.bbs = "8889"`, `log_level = "loud"`, `tls.cert = ""`, `static_dir = ""`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in:\n%v", want, err)
		}
	}
}

func TestBridge_checkServesNothing(t *testing.T) {
	out, err := bridge(t, "--check", "--config", goodBridge(t))
	if err != nil || !strings.Contains(out, "ok") || strings.Contains(out, "https://") {
		t.Errorf("%q, %v", out, err)
	}
}

// lines tells a test when the command has printed its addresses.
type lines struct {
	bytes.Buffer
	want  string
	found context.CancelFunc
}

func (l *lines) Write(p []byte) (int, error) {
	n, err := l.Buffer.Write(p)
	if strings.Contains(l.String(), l.want) {
		l.found()
	}
	return n, err
}

func TestBridge_servesUntilToldToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := &lines{want: "uploader  https://127.0.0.1:", found: cancel}
	cmd := newBridgeCommand()
	cmd.SetOut(out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"--config", goodBridge(t)})
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Errorf("ended with %v", err)
	}
	for _, want := range []string{"bbs       https://127.0.0.1:", "files     http://127.0.0.1:", out.want} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}

func TestBridge_helpTeaches(t *testing.T) {
	out, err := bridge(t, "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"static_dir", "token_file", "mutual TLS", "--check"} {
		if !strings.Contains(out, want) {
			t.Errorf("the help does not mention %q", want)
		}
	}
}
