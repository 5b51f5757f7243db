//go:build root

package quota

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver/drivertest"
)

func TestDetect_none(t *testing.T) {
	for name, dir := range map[string]string{
		"tmpfs": "/dev/shm", "proc": "/proc", "nothing": "/does/not/exist",
		"ext4 without quotas": drivertest.FileSystem(t, "ext4", "", "mke2fs", "-q", "-t", "ext4", "-F"),
	} {
		if err := Detect(dir, 77); !errors.Is(err, ErrNoProjects) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDetect_notMounted: an ext4 that counts but does not limit.
func TestDetect_notMounted(t *testing.T) {
	dir := drivertest.FileSystem(t, "ext4", "", drivertest.ProjectExt4()...)
	if err := Detect(dir, 77); !errors.Is(err, ErrNoProjects) || !strings.Contains(err.Error(), "not mounted with the option prjquota") {
		t.Errorf("%v", err)
	}
}

func TestProject(t *testing.T) {
	for kind, mkfs := range map[string][]string{"ext4": drivertest.ProjectExt4(), "xfs": drivertest.ProjectXFS()} {
		t.Run(kind, func(t *testing.T) {
			dir := drivertest.FileSystem(t, kind, "prjquota", mkfs...)
			if err := Detect(dir, 77); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(dir + "/quota-trial-*"); len(left) > 0 {
				t.Errorf("detection leaves %v", left)
			}
			t.Run("limits", func(t *testing.T) { testLimits(t, dir) })
			t.Run("adopts", func(t *testing.T) { testAdopt(t, dir) })
			t.Run("watches", func(t *testing.T) { testWatchProject(t, dir) })
		})
	}
}

// asNobody writes as somebody without the privilege to exceed limits.
func asNobody(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func project(t *testing.T, parent string, id uint32, limit Amount) string {
	t.Helper()
	dir := filepath.Join(parent, strconv.Itoa(int(id)))
	if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777), os.Chmod(parent, 0o755), Assign(dir, id), SetLimit(dir, id, limit)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testLimits(t *testing.T, parent string) {
	t.Helper()
	dir, other := project(t, parent, 1001, Amount{Bytes: 8 * mib, Inodes: 100}), project(t, parent, 1002, Amount{Bytes: 8 * mib})
	out := asNobody(t, "mkdir -p "+dir+"/a/b; dd if=/dev/zero bs=1M count=20 of="+dir+"/a/b/f")
	if !strings.Contains(out, "quota exceeded") && !strings.Contains(out, "No space left") {
		t.Errorf("writing too much: %s", out)
	}
	used, limit, err := Usage(dir, 1001)
	if err != nil || used.Bytes > 8*mib || used.Bytes < 7*mib || limit != (Amount{Bytes: 8 * mib, Inodes: 100}) {
		t.Errorf("used %+v of %+v, %v", used, limit, err)
	}
	if out := asNobody(t, "dd if=/dev/zero bs=1M count=5 of="+other+"/f && echo fine"); !strings.Contains(out, "fine") {
		t.Errorf("the neighbour: %s", out)
	}
	if err := os.Remove(dir + "/a/b/f"); err != nil {
		t.Fatal(err)
	}
	if out := asNobody(t, "for n in $(seq 200); do : >"+dir+"/$n || break; done"); !strings.Contains(out, "quota exceeded") && !strings.Contains(out, "No space left") {
		t.Errorf("making too many files: %s", out)
	}
	if Of(dir) != 1001 || Of(dir+"/a") != 1001 || Of(parent) != 0 {
		t.Errorf("projects: %d %d %d", Of(dir), Of(dir+"/a"), Of(parent))
	}
	for _, gone := range []string{dir, other} {
		if err := errors.Join(SetLimit(gone, Of(gone), Amount{}), os.RemoveAll(gone)); err != nil {
			t.Fatal(err)
		}
	}
	forgotten(t, parent, 1001)
	forgotten(t, parent, 1002)
}

// forgotten waits until nothing is known of a project; xfs frees inodes a moment later.
func forgotten(t *testing.T, dir string, id uint32) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		used, limit, err := Usage(dir, id)
		if used == (Amount{}) && limit == (Amount{}) && err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("project %d is left with %+v of %+v, %v", id, used, limit, err)
		case <-tick.C:
		}
	}
}

func testAdopt(t *testing.T, parent string) {
	t.Helper()
	dir, beside := filepath.Join(parent, "adopted"), project(t, parent, 1003, Amount{Bytes: 8 * mib})
	if err := errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.Symlink("/", dir+"/link"), unix.Mkfifo(dir+"/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/a/b/f", 3*mib)
	if err := Adopt(t.Context(), open(t, dir), 1003, Amount{Bytes: 8 * mib}, beside); err != nil {
		t.Fatal(err)
	}
	if used, _, err := Usage(parent, 1003); err != nil || used.Bytes < 3*mib || Of(dir+"/a/b") != 1003 {
		t.Errorf("used %+v, %v", used, err)
	}
	full := filepath.Join(parent, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, full+"/f", 9*mib)
	if err := Adopt(t.Context(), open(t, full), 1003, Amount{Bytes: 8 * mib}, beside); !errors.Is(err, ErrTooMuch) {
		t.Errorf("adopting too much: %v", err)
	}
	elsewhere := t.TempDir()
	if err := Adopt(t.Context(), open(t, elsewhere), 1003, Amount{Bytes: 8 * mib}, beside); err != nil || Of(elsewhere) != 0 {
		t.Errorf("adopting what is elsewhere: %v, project %d", err, Of(elsewhere))
	}
}

// testWatchProject: what the kernel enforces is warned of, and never a reason to stop; what is beside is.
func testWatchProject(t *testing.T, parent string) {
	t.Helper()
	dir, beside := project(t, parent, 1004, Amount{Bytes: 8 * mib}), t.TempDir()
	over, near := watch(t, Task{Limit: Amount{Bytes: 8 * mib}, Project: 1004, Disk: open(t, dir), Counted: []*os.File{open(t, beside)}})
	asNobody(t, "dd if=/dev/zero bs=64k of="+dir+"/f")
	write(t, beside+"/f", mib)
	if got := given(t, near); got.Bytes < 6*mib || got.Bytes > 8*mib {
		t.Errorf("warned at %+v", got)
	}
	select {
	case got := <-over:
		t.Fatalf("stopped at %+v", got)
	case <-time.After(time.Second):
	}
	write(t, beside+"/f", 9*mib)
	if got := given(t, over); got.Bytes < 9*mib {
		t.Errorf("stopped at %+v", got)
	}
}
