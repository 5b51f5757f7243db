//go:build e2e

package e2e_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDemo is the whole line as a new user sees it: staging, running, routing, scaling, crashing, a task, deletion, and
// a machine that is clean afterwards.
func TestDemo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	program, err := filepath.Abs("../bin/drover")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, program, "demo", "--dir", filepath.Join(t.TempDir(), "dev")).CombinedOutput()
	if err != nil {
		t.Fatalf("drover demo: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "demo: ok") {
		t.Errorf("the demo's last line is %q, want demo: ok", last)
	}
}
