//go:build root

package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	handle, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = handle.Close() })
	return handle
}

// write makes a file of so many bytes that are on the disk's account at once.
func write(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

func measured(t *testing.T, dir string) Amount {
	t.Helper()
	got, err := Measure(t.Context(), open(t, dir), Amount{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

const mib = 1 << 20

func TestMeasure(t *testing.T) {
	for name, c := range map[string]struct {
		make         func(t *testing.T, dir string)
		inodes       int64
		least, under int64
	}{
		"nothing":                   {makeNothing, 1, 0, mib},
		"files":                     {makeFiles, 4, 3 * mib, 4 * mib},
		"a hole":                    {makeHole, 2, mib, 2 * mib},
		"space beyond a file's end": {makeBeyond, 2, 5 * mib, 6 * mib},
		"many names of one file":    {makeNames, 2, mib, 2 * mib},
		"links to elsewhere":        {makeLinks, 6, 0, mib},
		"another file system":       {makeMount, 1, 0, mib},
		"special files":             {makeSpecial, 4, 0, mib},
		"three thousand levels":     {makeDeep, 3002, mib + 3000*4096, 2*mib + 3000*4096},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			got := measured(t, dir)
			if got.Inodes != c.inodes || got.Bytes < c.least || got.Bytes >= c.under {
				t.Errorf("got %+v, want %d inodes and %d to %d bytes", got, c.inodes, c.least, c.under)
			}
		})
	}
}

func makeNothing(*testing.T, string) {}

func makeFiles(t *testing.T, dir string) {
	t.Helper()
	for n := range 3 {
		write(t, filepath.Join(dir, strconv.Itoa(n)), mib)
	}
}

func makeHole(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "f"), mib)
	if err := os.Truncate(filepath.Join(dir, "f"), 1<<40); err != nil {
		t.Fatal(err)
	}
}

func makeBeyond(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 5*mib), file.Close()); err != nil {
		t.Fatal(err)
	}
}

func makeNames(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "f"), mib)
	for n := range 100 {
		if err := os.Link(filepath.Join(dir, "f"), filepath.Join(dir, strconv.Itoa(n))); err != nil {
			t.Fatal(err)
		}
	}
}

func makeLinks(t *testing.T, dir string) {
	t.Helper()
	for n, to := range []string{"/", "/usr", ".", "..", "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, strconv.Itoa(n))); err != nil {
			t.Fatal(err)
		}
	}
}

func makeMount(t *testing.T, dir string) {
	t.Helper()
	at := filepath.Join(dir, "m")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	write(t, filepath.Join(at, "f"), 3*mib)
}

func makeSpecial(t *testing.T, dir string) {
	t.Helper()
	for name, mode := range map[string]uint32{"fifo": unix.S_IFIFO, "whiteout": unix.S_IFCHR, "socket": unix.S_IFSOCK} {
		if err := unix.Mknod(filepath.Join(dir, name), mode|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func makeDeep(t *testing.T, dir string) {
	t.Helper()
	at := dir
	for range 30 { // a path of a hundred levels at a time
		for range 100 {
			at += "/d"
		}
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(at, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		at = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	write(t, at+"/f", mib)
}

func TestMeasure_leavesOff(t *testing.T) {
	dir := t.TempDir()
	for n := range 2000 {
		write(t, filepath.Join(dir, strconv.Itoa(n)), 0)
	}
	got, err := Measure(t.Context(), open(t, dir), Amount{Inodes: 100})
	if err != nil || got.Inodes <= 100 || got.Inodes >= 2000 {
		t.Errorf("%+v, %v", got, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(cancelled, open(t, dir), Amount{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled walk: %v", err)
	}
}

// TestMeasure_races walks a tree in which somebody renames directories and puts links in their place all the time. What
// it must never count is what the links lead to.
func TestMeasure_races(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "big"), 64<<20)
	for n := range 20 {
		at := filepath.Join(dir, strconv.Itoa(n), "a", "b")
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(at, "f"), 4096)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n = (n + 1) % 20 {
			select {
			case <-stop:
				return
			default:
			}
			at, away := filepath.Join(dir, strconv.Itoa(n), "a"), filepath.Join(dir, "away")
			_ = os.Rename(at, away)
			_ = os.Symlink(outside, at)
			_ = os.Remove(at)
			_ = os.Rename(away, at)
		}
	}()
	defer func() {
		close(stop)
		<-done
	}()
	for range 300 {
		if got := measured(t, dir); got.Bytes >= 8<<20 || got.Inodes > 90 {
			t.Fatalf("got %+v", got)
		}
	}
}

// watch begins to watch, and returns a channel that gives what broke the limit, and a function that says how often the
// task was warned.
func watch(t *testing.T, task Task) (<-chan Amount, <-chan Amount) {
	t.Helper()
	over, near := make(chan Amount, 1), make(chan Amount, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		used, err := Watch(ctx, task, func(used Amount) { near <- used })
		if err == nil {
			over <- used
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return over, near
}

func given(t *testing.T, from <-chan Amount) Amount {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain")
		return Amount{}
	}
}

// TestWatch_bytes: warns, then tells of too many bytes.
func TestWatch_bytes(t *testing.T) {
	dir, counted := t.TempDir(), t.TempDir()
	over, near := watch(t, Task{Limit: Amount{Bytes: 20 * mib}, Disk: open(t, dir), Counted: []*os.File{open(t, counted)}})
	write(t, filepath.Join(dir, "a"), 9*mib)
	write(t, filepath.Join(counted, "a"), 9*mib)
	if got := given(t, near); got.Bytes < 18*mib || got.Bytes > 20*mib {
		t.Errorf("warned at %+v", got)
	}
	write(t, filepath.Join(counted, "b"), 9*mib)
	if got := given(t, over); got.Bytes < 27*mib {
		t.Errorf("stopped at %+v", got)
	}
}

// TestWatch_files: tells of too many files.
func TestWatch_files(t *testing.T) {
	dir := t.TempDir()
	over, _ := watch(t, Task{Limit: Amount{Bytes: 1 << 30, Inodes: 500}, Disk: open(t, dir)})
	for n := range 600 {
		write(t, filepath.Join(dir, strconv.Itoa(n)), 0)
	}
	if got := given(t, over); got.Inodes <= 500 {
		t.Errorf("stopped at %+v", got)
	}
}

// TestWatch_nameless: sees open and mapped files without a name.
func TestWatch_nameless(t *testing.T) {
	dir := t.TempDir()
	over, _ := watch(t, Task{
		Limit: Amount{Bytes: 20 * mib}, Disk: open(t, dir), PIDs: func() ([]int, error) { return []int{os.Getpid()}, nil },
	})
	for _, name := range []string{"open", "mapped"} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(file.Name()), unix.Fallocate(int(file.Fd()), 0, 0, 12*mib)); err != nil {
			t.Fatal(err)
		}
		if name == "open" {
			t.Cleanup(func() { _ = file.Close() })
			continue
		}
		mapping, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(mapping) })
	}
	if got := given(t, over); got.Bytes < 24*mib {
		t.Errorf("stopped at %+v", got)
	}
}

func BenchmarkMeasure(b *testing.B) {
	for _, files := range []int{100, 10_000, 100_000} {
		b.Run(strconv.Itoa(files), func(b *testing.B) { benchmarkMeasure(b, files) })
	}
}

func benchmarkMeasure(b *testing.B, files int) {
	b.Helper()
	dir := b.TempDir()
	for n := range files {
		at := filepath.Join(dir, strconv.Itoa(n/500))
		if err := errors.Join(os.MkdirAll(at, 0o700), os.WriteFile(filepath.Join(at, strconv.Itoa(n)), nil, 0o600)); err != nil {
			b.Fatal(err)
		}
	}
	handle, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = handle.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Measure(b.Context(), handle, Amount{}); err != nil {
			b.Fatal(err)
		}
	}
}
