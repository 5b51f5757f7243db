//go:build root

package selftest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drover/driver"
	"drover/driver/selftest"
)

// buildShim builds the shim as operators have it.
func buildShim(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "drover-shim")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags=seccomp,osusergo,netgo,static_build",
		"-ldflags=-s -w -linkmode=external -extldflags=-static", "-o", path, "drover/cmd/drover-shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build shim: %v\n%s", err, out)
	}
	return path
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // a container's root must be able to walk through
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	good := selftest.Options{
		StateDir: filepath.Join(dir, "state"), ImageDir: filepath.Join(dir, "images"), Shim: buildShim(t, dir),
		IDs: driver.IDRange{Host: 1 << 30, Size: 1 << 16}, Seccomp: "default",
	}
	clean := func(t *testing.T) {
		t.Helper()
		for _, pattern := range []string{good.StateDir + "/*", good.ImageDir + "/*"} {
			if left, _ := filepath.Glob(pattern); len(left) > 0 { // the patterns are good
				t.Errorf("left behind: %v", left)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("a mount is left behind (%v)", err)
		}
	}
	t.Run("a node that can", func(t *testing.T) {
		got, err := selftest.Run(t.Context(), good)
		if err != nil || !got.UserNS || !got.IDMap || !got.Seccomp {
			t.Errorf("got %+v, %v", got, err)
		}
		t.Logf("it took %s", got.Took)
		clean(t)
	})
	t.Run("without a filter of system calls when the operator wants none", func(t *testing.T) {
		o := good
		o.Seccomp = "off"
		if got, err := selftest.Run(t.Context(), o); err != nil || got.Seccomp {
			t.Errorf("got %+v, %v", got, err)
		}
		clean(t)
	})
	t.Run("finds that ids are not mapped, and that the container is the host's root", func(t *testing.T) {
		o := good
		o.IDs = driver.IDRange{}
		got, err := selftest.Run(t.Context(), o)
		if err == nil || got.UserNS || !strings.Contains(err.Error(), "the host's user ids") {
			t.Errorf("got %+v, %v", got, err)
		}
		clean(t)
	})
	t.Run("names an image_dir that cannot be written", func(t *testing.T) {
		o := good
		o.ImageDir = "/proc/nowhere"
		if _, err := selftest.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "image_dir") {
			t.Errorf("error %v", err)
		}
		clean(t)
	})
	t.Run("names a shim that is none", func(t *testing.T) {
		o := good
		o.Shim = "/bin/true"
		if _, err := selftest.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the shim ended before the container ran") {
			t.Errorf("error %v", err)
		}
		clean(t)
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := selftest.Run(ctx, good); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		clean(t)
	})
}
