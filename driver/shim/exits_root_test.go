//go:build root

package shim

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

func TestListenExit(t *testing.T) {
	for _, test := range []struct {
		name, script string
		code         int
	}{
		{"an exit status", "read x; exit 9", 9},
		{"success", "read x", 0},
		{"a signal", "read x; kill -TERM $$", 143},
	} {
		t.Run(test.name, func(t *testing.T) { checkHeard(t, test.script, test.code) })
	}
}

func checkHeard(t *testing.T, script string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listener, err := listenExit(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_ = exec.CommandContext(ctx, "/bin/sh", "-c", "exit 3").Run() // is not what we listen to
	if status, _ := listener.ended(); status != 0 {
		t.Errorf("heard %#x of another process", status)
	}
	_, _ = stdin.Write([]byte("go\n"))
	_ = cmd.Wait()
	for {
		status, settled := listener.ended()
		if settled {
			if got := exitOf(status).Code; got != code {
				t.Errorf("heard %d, want %d", got, code)
			}
			return
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			t.Fatal("heard nothing")
		}
	}
}
