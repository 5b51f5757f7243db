//go:build root

package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

func stored() driver.IDRange { return driver.IDRange{Host: 1_000_000_000, Size: 65536} }

func helper(tb testing.TB) []string {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return []string{self, asHelper}
}

// fingerprint digests everything about a tree that an attack could change.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(sum, path, stat.Mode, stat.Uid, stat.Gid, stat.Nlink, stat.Mtim, stat.Size)
		if stat.Mode&unix.S_IFMT == unix.S_IFREG {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum.Write(raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// neighbour makes a host tree with things worth stealing, and an empty destination beside it.
func neighbour(t *testing.T) (host, dest string) {
	t.Helper()
	dir := t.TempDir()
	host, dest = filepath.Join(dir, "host"), filepath.Join(dir, "dest")
	for _, err := range []error{
		os.Mkdir(host, 0o777), os.Chmod(host, 0o777), os.Mkdir(dest, 0o700),
		os.WriteFile(filepath.Join(host, "shadow"), []byte("root:*"), 0o600),
		os.WriteFile(filepath.Join(host, "open"), []byte("everybody may write"), 0o666), os.Chmod(filepath.Join(host, "open"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return host, dest
}

func TestRun_nastyArchives(t *testing.T) {
	host, _ := neighbour(t)
	link := drivertest.Symlink
	file := drivertest.File
	device := func(name string, kind byte) drivertest.Entry {
		return drivertest.Entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 5}}
	}
	rows := []struct {
		name    string
		entries []drivertest.Entry
		layer   bool
		want    error
	}{
		{"climbs out by name", []drivertest.Entry{file("../host/evil", 0o644, "x")}, true, ErrEscapes},
		{"overwrites by an absolute name, inside", []drivertest.Entry{file(host+"/open", 0o644, "x")}, true, nil},
		{"writes through an absolute link, in an archive", []drivertest.Entry{link("l", host), file("l/evil", 0o644, "x")}, false, ErrEscapes},
		{"writes through an absolute link, in a layer", []drivertest.Entry{link("l", host), file("l/evil", 0o644, "x")}, true, ErrCorrupt},
		{"writes through a climbing link", []drivertest.Entry{link("l", "../host"), file("l/evil", 0o644, "x")}, false, ErrEscapes},
		{"writes through a chain of links", []drivertest.Entry{link("a", "."), link("a/b", ".."), file("b/host/evil", 0o644, "x")}, false, ErrEscapes},
		{"replaces a link to a file, not the file", []drivertest.Entry{link("l", host+"/open"), file("l", 0o644, "x")}, false, nil},
		{"hard links to the shadow", []drivertest.Entry{drivertest.Hardlink("l", host+"/shadow")}, true, ErrCorrupt},
		{"hard links by climbing", []drivertest.Entry{drivertest.Hardlink("l", "../host/open"), file("l", 0o644, "x")}, true, ErrEscapes},
		{"hard links through a link", []drivertest.Entry{link("d", host), drivertest.Hardlink("l", "d/open")}, false, ErrEscapes},
		{"hard links a link", []drivertest.Entry{link("s", host+"/open"), drivertest.Hardlink("l", "s"), file("l", 0o600, "x")}, true, nil},
		{"replaces the destination by a link", []drivertest.Entry{link(".", host), file("evil", 0o644, "x")}, true, ErrEscapes},
		{"replaces the destination by a file", []drivertest.Entry{file(".", 0o644, "x")}, true, ErrEscapes},
		{"whites out its parent", []drivertest.Entry{file(".wh...", 0o644, "")}, true, ErrEscapes},
		{"whites out through a link", []drivertest.Entry{link("l", "../host"), file("l/.wh.open", 0o644, "")}, true, ErrCorrupt},
		{"marks a link's target opaque", []drivertest.Entry{link("l", "/../host"), file("l/.wh..wh..opq", 0o644, "")}, true, ErrCorrupt},
		{"makes devices", []drivertest.Entry{device("c", tar.TypeChar), device("b", tar.TypeBlock)}, true, nil},
		{"makes setuid programs", []drivertest.Entry{file("su", 0o6755, "x")}, true, nil},
		{"changes modes through a link", []drivertest.Entry{link("l", host), drivertest.Dir("l", 0o777)}, true, nil},
		{"belongs to ids that are not mapped", []drivertest.Entry{file("f", 0o644, "x").Owned(1<<20, 1<<21-1)}, true, nil},
		{"tells an overlay where to look", []drivertest.Entry{{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755,
			PAXRecords: map[string]string{"SCHILY.xattr.user.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.opaque": "y"}}}}, true, nil},
	}
	before := fingerprint(t, host)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dest := filepath.Join(filepath.Dir(host), "dest")
			if err := os.MkdirAll(dest, 0o700); err != nil {
				t.Fatal(err)
			}
			job := Job{Dest: dest, IDs: stored(), Whiteouts: row.layer}
			_, err := Run(t.Context(), helper(t), job, bytes.NewReader(drivertest.Tar(t, row.entries...)))
			if !errors.Is(err, row.want) || (err != nil) != (row.want != nil) {
				t.Errorf("got %v, want %v", err, row.want)
			}
			if after := fingerprint(t, host); after != before {
				t.Error("the host's tree has changed")
			}
			ownedBy(t, dest, stored())
			if err := os.RemoveAll(dest); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// ownedBy fails for whatever in a tree belongs to ids outside the range, and for attributes that steer an overlay.
func ownedBy(t *testing.T, dir string, ids driver.IDRange) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		for _, id := range []uint32{stat.Uid, stat.Gid} {
			if id < ids.Host || id >= ids.Host+ids.Size {
				t.Errorf("%s belongs to %d:%d", path, stat.Uid, stat.Gid)
			}
		}
		if _, err := unix.Lgetxattr(path, "user.overlay.redirect", nil); err == nil {
			t.Errorf("%s has an overlay's attribute", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRun_ownership(t *testing.T) {
	vcap := &Owner{UID: driver.VcapID, GID: driver.VcapID}
	archive := drivertest.Tar(t, drivertest.File("f", 0o644, "x").Owned(7, 8))
	rows := []struct {
		name     string
		job      Job
		file     string
		uid, gid uint32
	}{
		{"keeps the archive's owner, shifted", Job{IDs: stored()}, "f", 1_000_000_007, 1_000_000_008},
		{"gives all to the job's owner, shifted", Job{IDs: stored(), Owner: vcap}, "f", 1_000_002_000, 1_000_002_000},
		{"writes host ids without a range", Job{Owner: vcap}, "f", 2000, 2000},
		{"gives the prefix to the owner", Job{IDs: stored(), Owner: vcap, Prefix: "/home/vcap"}, "home/vcap", 1_000_002_000, 1_000_002_000},
		{"gives the prefix's parents in /home to the owner", Job{IDs: stored(), Owner: vcap, Prefix: "/home/vcap/app"}, "home/vcap", 1_000_002_000, 1_000_002_000},
		{"gives the prefix's parents elsewhere to root", Job{IDs: stored(), Owner: vcap, Prefix: "/srv/a/b"}, "srv/a", 1_000_000_000, 1_000_000_000},
		{"gives the prefix's parents to root", Job{IDs: stored(), Owner: vcap, Prefix: "/home/vcap"}, "home", 1_000_000_000, 1_000_000_000},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.job.Dest = t.TempDir()
			if _, err := Run(t.Context(), helper(t), row.job, bytes.NewReader(archive)); err != nil {
				t.Fatal(err)
			}
			var stat unix.Stat_t
			if err := unix.Lstat(filepath.Join(row.job.Dest, row.file), &stat); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([2]uint32{row.uid, row.gid}, [2]uint32{stat.Uid, stat.Gid}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRun_intoAnExistingTree(t *testing.T) {
	host, root := neighbour(t)
	before := fingerprint(t, host)
	ids := driver.IDRange{Host: 2_000_000_000, Size: 65536}
	for _, err := range []error{
		os.Mkdir(filepath.Join(root, "tmp"), 0o777), os.Chmod(filepath.Join(root, "tmp"), 0o777),
		os.Symlink(host, filepath.Join(root, "tmp/app")), // the container's own doing
		os.Symlink("/tmp", filepath.Join(root, "data")),
		os.Chmod(root, 0o755), os.Chown(root, int(ids.Host), int(ids.Host)), os.Chown(filepath.Join(root, "tmp"), int(ids.Host), int(ids.Host)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	archive := drivertest.Tar(t, drivertest.Dir(".", 0o700), drivertest.File("f", 0o644, "x"), drivertest.File("open", 0o644, "x"))
	job := Job{DestFD: fd, IDs: ids, Prefix: "tmp/app", Owner: &Owner{}}
	if _, err := Run(t.Context(), helper(t), job, bytes.NewReader(archive)); err == nil {
		t.Error("unpacked below a link that leads to the host")
	}
	job.Prefix = "data/lifecycle"
	if _, err := Run(t.Context(), helper(t), job, bytes.NewReader(archive)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "tmp/lifecycle/f")); err != nil {
		t.Error(err)
	}
	if fingerprint(t, host) != before {
		t.Error("the host's tree has changed")
	}
}

func TestRun_intoAnotherMountNamespace(t *testing.T) {
	ids, dir := stored(), t.TempDir()
	cmd := exec.CommandContext(t.Context(), helper(t)[0], asWorld, dir, strconv.Itoa(int(ids.Host)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(in.Close(), cmd.Wait()) }()
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	seen := fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, dir)
	fd, err := unix.Open(seen, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dest := os.NewFile(uintptr(fd), seen)
	defer func() { _ = dest.Close() }()
	archive := drivertest.Tar(t, drivertest.File("f", 0o644, "x"))
	if _, err := Run(t.Context(), helper(t), Job{DestFD: dest, IDs: ids, Prefix: "app"}, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(seen, "app/f")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "app")); err == nil {
		t.Error("unpacked beside the other file system, not into it")
	}
}

func TestRun_diskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	archive := drivertest.Tar(t, drivertest.File("big", 0o644, strings.Repeat("x", 2<<20)))
	for _, raw := range [][]byte{archive, zipped(t)} { // the first leaves no room for the second
		_, err := Run(t.Context(), helper(t), Job{Dest: dir, IDs: stored()}, bytes.NewReader(raw))
		if !errors.Is(err, ErrFull) {
			t.Errorf("got %v", err)
		}
	}
}

func TestRun_readerFails(t *testing.T) {
	broken := errors.New("connection reset")
	raw := drivertest.Tar(t, drivertest.File("big", 0o644, strings.Repeat("x", 2<<20)))
	source := io.MultiReader(bytes.NewReader(raw[:1<<20]), failing{broken})
	if _, err := Run(t.Context(), helper(t), Job{Dest: t.TempDir(), IDs: stored()}, source); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestRun_isCancelled(t *testing.T) {
	self := helper(t)[0]
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	if _, err := Run(ctx, []string{self, asHang}, Job{Dest: t.TempDir(), IDs: stored()}, in); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestRun_endsWhenTheChildDoes(t *testing.T) {
	in, out := io.Pipe()
	go func() { _, _ = out.Write([]byte("BZh9 is refused at once, and then the peer says nothing more")) }()
	if _, err := Run(t.Context(), helper(t), Job{Dest: t.TempDir(), IDs: stored()}, in); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

func TestRun_leavesTheHostsMounts(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_SHARED, "")); err != nil {
		t.Fatal(err) // shared, as every mount is where systemd runs
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	dest, err := openDest(Job{Dest: dir, IDs: stored()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dest.Close() }()
	cmd := exec.CommandContext(t.Context(), helper(t)[0], asPivot)
	cmd.ExtraFiles = []*os.File{dest}
	cmd.SysProcAttr = confine(stored())
	if program, err := os.Open(helper(t)[0]); err == nil {
		defer func() { _ = program.Close() }()
		cmd.Path = fmt.Sprintf("/proc/self/fd/%d", program.Fd())
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the destination cannot become the child's root mount: %v: %s", err, out)
	}
}

func BenchmarkRun(b *testing.B) {
	var entries []drivertest.Entry
	body := strings.Repeat("some text that can be packed, 0123456789\n", 200)
	for dir := range 100 {
		for file := range 50 {
			entries = append(entries, drivertest.File(fmt.Sprintf("usr/lib/d%d/f%d", dir, file), 0o644, body[file:]))
		}
	}
	raw := drivertest.Tar(b, entries...)
	self := helper(b)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Run(b.Context(), self, Job{Dest: b.TempDir(), IDs: stored(), Whiteouts: true}, bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}
