package drivertest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ProjectExt4 makes, as FileSystem's program, an ext4 that can be mounted with prjquota.
func ProjectExt4() []string {
	return []string{"mke2fs", "-q", "-t", "ext4", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"}
}

// ProjectXFS is the same for xfs.
func ProjectXFS() []string { return []string{"mkfs.xfs", "-q"} }

// FileSystem mounts a file system of 320 MiB, made by a program, with some options, and returns its root. The test is
// skipped where this kernel or machine has no such thing.
func FileSystem(t *testing.T, kind, options string, mkfs ...string) string {
	t.Helper()
	program, err := exec.LookPath(mkfs[0])
	if err != nil {
		t.Skipf("no %s on this machine", mkfs[0])
	}
	mode := os.FileMode(0o711) // users of containers walk through
	image, dir := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "m")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20), os.Mkdir(dir, 0o755),
		os.Chmod(filepath.Dir(dir), mode), os.Chmod(filepath.Dir(filepath.Dir(dir)), mode)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), program, append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", mkfs[0], err, out)
	}
	out, err := exec.CommandContext(t.Context(), "mount", "-t", kind, "-o", strings.Trim("loop,"+options, ","), image, dir).CombinedOutput()
	if err != nil {
		t.Skipf("this kernel cannot mount %s with %s: %v: %s", kind, options, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}
