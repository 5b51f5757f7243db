//go:build root

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

const inside = "DROVER_TEST_INSIDE"

// TestMount runs its body in a mount namespace of its own, as the shim does, and looks afterwards that the host has
// none of its mounts.
func TestMount(t *testing.T) {
	if os.Getenv(inside) == "" {
		before := mounts(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestMount$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if diff := cmp.Diff(before, mounts(t)); diff != "" {
			t.Errorf("the host's mounts have changed: %s", diff)
		}
		return
	}
	t.Run("shifts owners of every layer", testOwners)
	t.Run("maps to host ids without a user namespace", testIdentity)
	t.Run("writes to upper as the container's users", testWrites)
	t.Run("hides what whiteouts name", testWhiteouts)
	t.Run("mounts two hundred layers", testManyLayers)
	t.Run("takes a layer twice", testTwice)
	t.Run("leaves nothing but the overlay", testNothingElse)
	t.Run("says so when a file system cannot map ids", testUnsupported)
}

func mounts(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(raw), "\n"), func(line string) bool { return !strings.Contains(line, "TestMount") })
}

func storedRange() driver.IDRange { return driver.IDRange{Host: 1_000_000_000, Size: 65536} }

func containerRange() driver.IDRange { return driver.IDRange{Host: 1_200_000_000, Size: 65536} }

// layer makes a directory of files, "name" or "name/", each with an owner as the container counts them.
func layer(t *testing.T, stored driver.IDRange, files map[string]uint32) driver.Layer {
	t.Helper()
	dir := t.TempDir()
	chown := func(name string, id uint32) {
		host, _ := stored.HostID(id)
		if err := os.Lchown(name, int(host), int(host)); err != nil {
			t.Fatal(err)
		}
	}
	chown(dir, 0)
	for name, owner := range files {
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
		chown(path, owner)
	}
	return driver.Layer{Dir: dir, Stored: stored}
}

func mount(t *testing.T, ids driver.IDRange, layers ...driver.Layer) (target, dir string) {
	t.Helper()
	dir = t.TempDir()
	target, err := Mount(driver.RootFS{Layers: layers}, ids, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	return target, dir
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Uid
}

func testOwners(t *testing.T) {
	target, _ := mount(t, containerRange(),
		layer(t, driver.IDRange{}, map[string]uint32{"etc/passwd": 0, "home/vcap/": 2000}),
		layer(t, storedRange(), map[string]uint32{"home/vcap/app": 2000, "srv/data": 7}),
		layer(t, containerRange(), map[string]uint32{"own": 9}),
	)
	for name, id := range map[string]uint32{"": 0, "etc/passwd": 0, "home/vcap/app": 2000, "srv/data": 7, "own": 9} {
		if got := owner(t, filepath.Join(target, name)); got != containerRange().Host+id {
			t.Errorf("/%s belongs to %d", name, got)
		}
	}
}

func testIdentity(t *testing.T) {
	target, _ := mount(t, driver.IDRange{}, layer(t, storedRange(), map[string]uint32{"a": 2000}), layer(t, driver.IDRange{}, map[string]uint32{"b": 3}))
	if a, b := owner(t, filepath.Join(target, "a")), owner(t, filepath.Join(target, "b")); a != 2000 || b != 3 {
		t.Errorf("owners %d and %d", a, b)
	}
}

func testWrites(t *testing.T) {
	layers := append(drivertest.RootFS(t), layer(t, storedRange(), map[string]uint32{"data/": 2000}))
	target, dir := mount(t, containerRange(), layers...)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	ids := containerRange()
	cmd := exec.CommandContext(t.Context(), "/bin/probe", "then", "--", "write", "/data/new", "hello", "--", "append", "/data/new", "again")
	cmd.Dir = "/"
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.Host), Size: int(ids.Size)}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: target, Cloneflags: syscall.CLONE_NEWUSER, UidMappings: mapping, GidMappings: mapping,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{Uid: 2000, Gid: 2000},
	}
	if err := unix.Mount("proc", filepath.Join(target, "proc"), "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(filepath.Join(target, "proc"), unix.MNT_DETACH) }()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	upper := filepath.Join(dir, "disk/upper/data/new")
	raw, err := os.ReadFile(upper)
	if err != nil || string(raw) != "hello\nagain\n" {
		t.Errorf("upper holds %q, %v", raw, err)
	}
	if got := owner(t, upper); got != ids.Host+2000 {
		t.Errorf("a new file belongs to %d", got)
	}
}

func testWhiteouts(t *testing.T) {
	top := layer(t, storedRange(), map[string]uint32{"opaque/mine": 0, "dir/": 0})
	if err := unix.Mknod(filepath.Join(top.Dir, "dir/gone"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(top.Dir, "opaque"), "user.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	target, _ := mount(t, containerRange(), layer(t, storedRange(), map[string]uint32{"dir/gone": 0, "dir/kept": 0, "opaque/theirs": 0}), top)
	var names []string
	err := filepath.WalkDir(target, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, strings.TrimPrefix(path, target))
		}
		return err
	})
	if diff := cmp.Diff([]string{"/dir/kept", "/opaque/mine"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func testManyLayers(t *testing.T) {
	var layers []driver.Layer
	for n := range 200 {
		layers = append(layers, layer(t, storedRange(), map[string]uint32{fmt.Sprint("f", n): uint32(n)}))
	}
	target, _ := mount(t, containerRange(), layers...)
	entries, err := os.ReadDir(target)
	if len(entries) != 200 || err != nil {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func testTwice(t *testing.T) {
	twice, between := layer(t, storedRange(), map[string]uint32{"a": 0}), layer(t, storedRange(), map[string]uint32{"b": 0})
	target, _ := mount(t, containerRange(), twice, between, twice)
	entries, err := os.ReadDir(target)
	if len(entries) != 2 || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
}

func testNothingElse(t *testing.T) {
	target, dir := mount(t, containerRange(), layer(t, storedRange(), map[string]uint32{"a": 0}))
	var here []string
	for _, line := range mounts(t) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir) {
			here = append(here, fields[4])
		}
	}
	if diff := cmp.Diff([]string{target}, here); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Lstat(filepath.Join(dir, "l")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mount points of layers are left: %v", err)
	}
}

func testUnsupported(t *testing.T) {
	_, err := Mount(driver.RootFS{Layers: []driver.Layer{{Dir: "/sys"}}}, containerRange(), t.TempDir())
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "/sys") {
		t.Errorf("got %v", err)
	}
}

func TestProbe(t *testing.T) {
	got, err := Probe(t.TempDir())
	if diff := cmp.Diff(Support{IDMap: true, Overlay: true}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func BenchmarkUserNamespace(b *testing.B) {
	for b.Loop() {
		maps := &idMaps{}
		if _, err := maps.get(mapping(storedRange(), containerRange())); err != nil {
			b.Fatal(err)
		}
		maps.close()
	}
}

// BenchmarkMount is to be run in a mount namespace of its own.
func BenchmarkMount(b *testing.B) {
	if os.Getenv(inside) == "" {
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.CommandContext(b.Context(), self, "-test.run=^$", "-test.bench=^BenchmarkMount$", "-test.benchtime=100x")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		return
	}
	layers := make([]driver.Layer, 3)
	for n := range layers {
		layers[n] = driver.Layer{Dir: b.TempDir(), Stored: storedRange()}
	}
	for b.Loop() {
		dir := b.TempDir()
		target, err := Mount(driver.RootFS{Layers: layers}, containerRange(), dir)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
