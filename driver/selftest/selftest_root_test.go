//go:build root

package selftest_test

import (
	"context"
	"errors"
	"fmt"
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
		if left := leftovers(t, good, dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
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
	for _, row := range []struct {
		promise string
		change  func(*selftest.Options)
		says    string
	}{
		{"wants no filter of system calls when the operator wants none", func(o *selftest.Options) { o.Seccomp = "off" }, ""},
		{"finds that the container is the host's root", func(o *selftest.Options) { o.IDs = driver.IDRange{} }, "the host's user ids"},
		{"names an image_dir that cannot be written", func(o *selftest.Options) { o.ImageDir = "/proc/nowhere" }, "image_dir"},
		{"names a shim that is none", func(o *selftest.Options) { o.Shim = "/bin/true" }, "the shim ended before the container ran"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			o := good
			row.change(&o)
			if _, err := selftest.Run(t.Context(), o); row.says == "" && err != nil || row.says != "" && !strings.Contains(fmt.Sprint(err), row.says) {
				t.Errorf("error %v, want %q", err, row.says)
			}
			clean(t)
		})
	}
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := selftest.Run(ctx, good); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		clean(t)
	})
}

// leftovers lists what is in the directories, and mounts below dir.
func leftovers(t *testing.T, o selftest.Options, dir string) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{o.StateDir + "/*", o.ImageDir + "/*"} {
		found, _ := filepath.Glob(pattern) // the patterns are good
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		left = append(left, "a mount")
	}
	return left
}
