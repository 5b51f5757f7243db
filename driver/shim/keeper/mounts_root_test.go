//go:build root

package keeper_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// sharedDir is a directory of the host whose mounts are shown to others.
func sharedDir(t *testing.T, propagation uintptr) string {
	t.Helper()
	dir := t.TempDir()
	for _, step := range []struct {
		source string
		flags  uintptr
	}{{dir, unix.MS_BIND}, {"", propagation}} {
		if err := unix.Mount(step.source, dir, "", step.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// mountTmpfs mounts a file system with one file in it on a new directory.
func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "inside"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// inMounts does something in the container's mount namespace, as a program there could that may mount.
func (b *box) inMounts(do func() error) {
	b.t.Helper()
	pid, err := shim.Dir(b.dir).Init()
	if err != nil {
		b.t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	if err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		return do()
	}); err != nil {
		b.t.Fatal(err)
	}
}

// onThread does something on a thread that is lost then, and that is not the one that /proc/self is about.
func onThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- do()
			return
		}
		done <- onThread(do)
		runtime.UnlockOSThread()
	}()
	return <-done
}

func isMounted(t *testing.T, dir string) bool {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(info), " "+dir+" ")
}

// spread is how far mounts go that are made later.
type spread struct {
	propagation    string
	hears, isHeard bool
}

func TestPropagation(t *testing.T) {
	for _, row := range []spread{{"", false, false}, {driver.PropagationSlave, true, false}, {driver.PropagationShared, true, true}} {
		t.Run(row.propagation+" with a user namespace", func(t *testing.T) { testPropagation(t, row, newBox(t, "sleep", "60")) })
		t.Run(row.propagation+" without", func(t *testing.T) {
			b := newBox(t, "sleep", "60")
			b.wish.IDs = driver.IDRange{}
			testPropagation(t, row, b)
		})
	}
}

func testPropagation(t *testing.T, want spread, b *box) {
	t.Helper()
	dir := sharedDir(t, unix.MS_SHARED)
	mountTmpfs(t, filepath.Join(dir, "before"))
	for _, made := range []string{"host", "container"} {
		if err := os.Mkdir(filepath.Join(dir, made), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	b.wish.Mounts = []driver.Mount{{Source: dir, Target: "/vol", IDMapped: true, Recursive: true, Propagation: want.propagation}}
	b.start()
	if got := b.exec("ls", "/vol/before"); got != "inside\n" {
		t.Errorf("what was mounted before is %q", got)
	}
	mountTmpfs(t, filepath.Join(dir, "host"))
	if got := b.exec("ls", "/vol/host") == "inside\n"; got != want.hears {
		t.Errorf("the container sees the host's later mounts: %v", got)
	}
	b.inMounts(func() error { return unix.Mount("tmpfs", "/vol/container", "tmpfs", 0, "size=1m") })
	if got := isMounted(t, filepath.Join(dir, "container")); got != want.isHeard {
		t.Errorf("the host sees the container's mounts: %v", got)
	}
	_ = unix.Unmount(filepath.Join(dir, "container"), unix.MNT_DETACH)
	if line := lineWith(b.exec("cat", "/proc/self/mountinfo"), " /vol "); !strings.Contains(line, "nosuid,nodev") {
		t.Errorf("it is mounted as %s", line)
	}
	b.destroy()
	if isMounted(t, filepath.Join(b.dir, "rootfs")) {
		t.Error("mounts are left on the host")
	}
}

// lineWith is the last line that holds a text: of mounts on the same place, the one that is seen.
func lineWith(text, want string) string {
	found := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, want) {
			found = line
		}
	}
	return found
}

func TestPropagation_needsAHostThatShares(t *testing.T) {
	dir := sharedDir(t, unix.MS_PRIVATE)
	for _, propagation := range []string{driver.PropagationSlave, driver.PropagationShared} {
		b := newBox(t, "echo")
		b.wish.Mounts = []driver.Mount{{Source: dir, Target: "/vol", Recursive: true, Propagation: propagation}}
		if b.tryToRun() {
			t.Errorf("%s: it runs", propagation)
		}
	}
}

func TestMounts_readOnlyToTheBottom(t *testing.T) {
	for _, propagation := range []string{"", driver.PropagationSlave, driver.PropagationShared} {
		for _, mapped := range []bool{true, false} {
			dir := sharedDir(t, unix.MS_SHARED)
			mountTmpfs(t, filepath.Join(dir, "below"))
			if err := os.Chmod(filepath.Join(dir, "below"), 0o777); err != nil {
				t.Fatal(err)
			}
			b := newBox(t, "sleep", "60")
			b.wish.Mounts = []driver.Mount{{Source: dir, Target: "/vol", ReadOnly: true, IDMapped: mapped, Recursive: true, Propagation: propagation}}
			b.start()
			for _, name := range []string{"/vol/x", "/vol/below/x"} {
				if got := b.execAs("root", "write", name, "x"); !strings.Contains(got, "read-only file system") {
					t.Errorf("mapped %v, %q: writing %s: %q", mapped, propagation, name, got)
				}
			}
		}
	}
}

func TestMounts_ownersOfTheHost(t *testing.T) {
	for _, propagation := range []string{"", driver.PropagationSlave, driver.PropagationShared} {
		dir := sharedDir(t, unix.MS_SHARED)
		mountTmpfs(t, filepath.Join(dir, "below"))
		for _, name := range []string{"", "below"} {
			if err := os.Chown(filepath.Join(dir, name), driver.VcapID, driver.VcapID); err != nil {
				t.Fatal(err)
			}
		}
		b := newBox(t, "then", "--", "write", "/vol/a", "x", "--", "write", "/vol/below/a", "x")
		b.wish.Mounts = []driver.Mount{{Source: dir, Target: "/vol", IDMapped: true, Recursive: true, Propagation: propagation}}
		if exit := b.start().wait(); exit.Code != 0 {
			t.Errorf("%q: exit is %+v: %s", propagation, exit, b.errs)
		}
		for _, name := range []string{"a", "below/a"} {
			var stat unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &stat); err != nil || stat.Uid != driver.VcapID {
				t.Errorf("%q: %s belongs to %d on the host, %v", propagation, name, stat.Uid, err)
			}
		}
	}
}

// A file system that maps no ids is no reason to stay silent about it.
func TestMounts_plainOnesAreTold(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Mounts = []driver.Mount{{Source: "/sys/class", Target: "/classes", IDMapped: true, Recursive: true}}
	b.start()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	events, err := b.client.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for event := range events {
		if event.Phase == driver.PhaseWarning && strings.Contains(event.Message, "/classes") {
			return
		}
	}
	t.Error("no event says so")
}

func TestMounts_madeWhenMissing(t *testing.T) {
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "local"), 0o777); err != nil {
		t.Fatal(err)
	}
	mount := driver.Mount{Source: filepath.Join(base, "local/a/b"), Base: base, Target: "/b", IDMapped: true, Create: true}
	b := newBox(t, "write", "/b/c", "x")
	b.wish.Mounts = []driver.Mount{mount}
	if exit := b.start().wait(); exit.Code != 0 {
		t.Errorf("exit is %+v: %s", exit, b.errs)
	}
	if _, err := os.Stat(filepath.Join(base, "local/a/b/c")); err != nil {
		t.Error(err)
	}
	victim := t.TempDir()
	if err := os.Symlink(victim, filepath.Join(base, "local/link")); err != nil {
		t.Fatal(err)
	}
	mount.Source = filepath.Join(base, "local/link/made")
	b = newBox(t, "echo")
	b.wish.Mounts = []driver.Mount{mount}
	if b.tryToRun() {
		t.Error("a link was followed")
	}
	if entries, err := os.ReadDir(victim); err != nil || len(entries) > 0 {
		t.Errorf("the link's end holds %v, %v", entries, err)
	}
}

// swapping exchanges two names without a pause until the test ends.
func swapping(t *testing.T, a, b string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

// A task of the same allocation exchanges the directory that is to be mounted with a link, all the time (CVE-2026-14896).
func TestMounts_racingSources(t *testing.T) {
	victim, base := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(victim, "secret"), []byte("the host's secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"local", "local/mine"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(victim, filepath.Join(base, "local/link")); err != nil {
		t.Fatal(err)
	}
	swapping(t, filepath.Join(base, "local/mine"), filepath.Join(base, "local/link"))
	ran := 0
	for range 8 {
		b := newBox(t, "ls", "/mnt")
		b.wish.Mounts = []driver.Mount{{Source: filepath.Join(base, "local/mine"), Base: base, Target: "/mnt", IDMapped: true, Recursive: true, Create: true}}
		if b.tryToRun() {
			ran++
		}
		if strings.Contains(b.out.String(), "secret") {
			t.Fatal("the container sees the host's directory")
		}
	}
	t.Logf("%d of 8 ran", ran)
}

// A container that shares a volume exchanges the place at which something is to be mounted with a link (CVE-2021-30465).
func TestMounts_racingTargets(t *testing.T) {
	victim, volume := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(volume, "place"), 0o777); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 40)
	if err := os.Symlink(up+victim, filepath.Join(volume, "link")); err != nil {
		t.Fatal(err)
	}
	swapping(t, filepath.Join(volume, "place"), filepath.Join(volume, "link"))
	shared := sharedDir(t, unix.MS_SHARED)
	for n := range 8 {
		b := newBox(t, "sleep", "60")
		inner := driver.Mount{Target: "/vol/place", Tmpfs: &driver.Tmpfs{SizeBytes: 1 << 20, Mode: 0o777}}
		if n%2 == 1 {
			inner = driver.Mount{Target: "/vol/place", Source: shared, Recursive: true, Propagation: driver.PropagationShared}
		}
		b.wish.Mounts = []driver.Mount{{Source: volume, Target: "/vol", Recursive: true}, inner}
		if client, err := shim.Start(t.Context(), program, b.dir, b.wish); err == nil {
			_ = client.Close()
		}
		mounted := isMounted(t, victim)
		b.destroy()
		if mounted || isMounted(t, victim) {
			t.Fatal("it is mounted on the host")
		}
	}
}

func TestTmpfs(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Mounts = []driver.Mount{
		{Target: "/cache", NoExec: true, Tmpfs: &driver.Tmpfs{SizeBytes: 1 << 20, Mode: 0o1777}},
		{Target: "/large", Tmpfs: &driver.Tmpfs{SizeBytes: 1 << 30, Mode: 0o1777}},
		{Target: "/root/own", Tmpfs: &driver.Tmpfs{SizeBytes: 1 << 20, Mode: 0o700}},
	}
	b.wish.RootFS.ReadOnly = true
	b.start()
	if got := b.execAs("vcap", "fill", "/cache/big", "2"); !strings.Contains(got, "no space left") {
		t.Errorf("filling it: %q", got)
	}
	b.execAs("vcap", "remove", "/cache/big")
	if got := b.execAs("vcap", "write", "/root/own/x", "x"); !strings.Contains(got, "permission denied") {
		t.Errorf("its mode is not kept: %q", got)
	}
	info := b.exec("cat", "/proc/self/mountinfo")
	if line := lineWith(info, " /cache "); !strings.Contains(line, "noexec") || !strings.Contains(line, "nosuid,nodev") {
		t.Errorf("it is mounted as %q", line)
	}
	if got := b.execAs("root", "write", "/x", "x"); !strings.Contains(got, "read-only file system") {
		t.Errorf("writing to /: %q", got)
	}
	// What is in it is the container's memory: 128 MiB are all that it has.
	if got := b.execAs("vcap", "fill", "/large/big", "256"); strings.Contains(got, "filled") {
		t.Errorf("memory is had for nothing: %q", got)
	}
}

// Docker's volumes of an image are writable when / is not, and begin with what the image has there.
func TestImageVolumes(t *testing.T) {
	image := t.TempDir()
	for _, dir := range []string{"data", "real"} {
		if err := os.Mkdir(filepath.Join(image, dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(image, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(image, "data/seed"), []byte("seed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/real", filepath.Join(image, "linked")); err != nil {
		t.Fatal(err)
	}
	before := digest(t, image)
	b := newBox(t, "sleep", "60")
	b.wish.RootFS.ReadOnly = true
	b.wish.RootFS.Layers = append(b.wish.RootFS.Layers, driver.Layer{Dir: image})
	b.wish.Mounts = []driver.Mount{
		{Target: "/data", Image: true}, {Target: "/missing/one", Image: true}, {Target: "/linked", Image: true},
		{Target: "/data/cache", Tmpfs: &driver.Tmpfs{SizeBytes: 4096, Mode: 0o755}},
	}
	b.start()
	for _, args := range [][]string{{"cat", "/data/seed"}, {"write", "/data/new", "x"}, {"write", "/linked/new", "x"}, {"cat", "/real/new"}} {
		b.exec(args...)
	}
	if got := b.execAs("root", "write", "/missing/one/new", "x"); got != "" {
		t.Errorf("what the image has not: %q", got)
	}
	if got := b.execAs("root", "write", "/etc/new", "x"); !strings.Contains(got, "read-only file system") {
		t.Errorf("writing elsewhere: %q", got)
	}
	if line := lineWith(b.exec("cat", "/proc/self/mountinfo"), " /data "); !strings.Contains(line, "nosuid,nodev") {
		t.Errorf("it is mounted as %q", line)
	}
	if digest(t, image) != before {
		t.Error("the image has changed on the disk")
	}
}
