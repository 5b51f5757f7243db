package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"drover/driver/drivertest"
)

// mine is a job that needs no privileges: everything belongs to whoever runs the test.
func mine(format string) Job {
	return Job{Format: format, Owner: &Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}}.withDefaults()
}

func extractTo(t *testing.T, dir string, job Job, raw []byte) (Stats, error) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return extract(job, root, bytes.NewReader(raw))
}

// list prints a directory's tree, one line for each name.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%v %s", info.Mode(), name)
		if target, err := os.Readlink(path); err == nil {
			line += " -> " + target
		}
		if info.Mode().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", raw)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func gzipped(t *testing.T, raw []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t *testing.T, raw []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(raw, nil)
}

func simple(t *testing.T) []byte {
	t.Helper()
	return drivertest.Tar(t, drivertest.Dir("a", 0o750), drivertest.File("a/b", 0o640, "hello"), drivertest.Symlink("a/c", "/etc/passwd"),
		drivertest.Hardlink("d", "a/b"), drivertest.File("deep/er/file", 0o4755, ""))
}

func simpleTree() []string {
	return []string{
		"drwxr-x--- a", `-rw-r----- a/b "hello"`, "Lrwxrwxrwx a/c -> /etc/passwd", `-rw-r----- d "hello"`,
		"drwxr-xr-x deep", "drwxr-xr-x deep/er", `urwxr-xr-x deep/er/file ""`,
	}
}

func TestExtract_formats(t *testing.T) {
	t.Parallel()
	raw := simple(t)
	half := len(raw) / 2
	rows := []struct {
		name    string
		archive []byte
		job     Job
	}{
		{"reads a plain tar", raw, mine(Auto)},
		{"reads a gzipped tar", gzipped(t, raw), mine(Auto)},
		{"reads a tar.zst", zstded(t, raw), mine(Auto)},
		{"reads a tgz that is named so", gzipped(t, raw), mine(TarGz)},
		{"reads all members of a gzip file", slices.Concat(gzipped(t, raw[:half]), gzipped(t, raw[half:])), mine(Auto)},
		{"reads all frames of a zstd file", slices.Concat(zstded(t, raw[:half]), zstded(t, raw[half:])), mine(Auto)},
		{"ignores garbage behind a gzip member", slices.Concat(gzipped(t, raw), []byte("garbage")), mine(Auto)},
		{"ignores garbage behind a zstd frame", slices.Concat(zstded(t, raw), []byte("garbage behind it")), mine(Auto)},
	}
	sum := sha256.Sum256(raw)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			stats, err := extractTo(t, dir, row.job, row.archive)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(simpleTree(), list(t, dir)); diff != "" {
				t.Error(diff)
			}
			want := Stats{Entries: 5, Bytes: 5, DiffID: "sha256:" + hex.EncodeToString(sum[:])}
			if diff := cmp.Diff(want, stats); diff != "" {
				t.Error(diff)
			}
			info, err := os.Stat(filepath.Join(dir, "a"))
			if err != nil || info.ModTime().Unix() != 1e9 {
				t.Errorf("a directory's time is %v, %v", info.ModTime(), err)
			}
		})
	}
}

func TestExtract_refuses(t *testing.T) {
	t.Parallel()
	file := drivertest.File
	small := mine(Auto)
	small.MaxBytes, small.MaxEntries = 1<<20, 100
	bomb := drivertest.Tar(t, file("zeros", 0o644, strings.Repeat("\x00", 2<<20)))
	var many []drivertest.Entry
	for n := range 101 {
		many = append(many, file(fmt.Sprint("f", n), 0o644, ""))
	}
	rows := []struct {
		name    string
		archive []byte
		want    error
	}{
		{"a name that climbs out", drivertest.Tar(t, file("../evil", 0o644, "x")), ErrEscapes},
		{"a name that climbs out in its middle", drivertest.Tar(t, file("a/../../evil", 0o644, "x")), ErrEscapes},
		{"a file through an absolute link", drivertest.Tar(t, drivertest.Symlink("l", "/tmp"), file("l/evil", 0o644, "x")), ErrEscapes},
		{"a file through a climbing link", drivertest.Tar(t, drivertest.Symlink("l", "../.."), file("l/evil", 0o644, "x")), ErrEscapes},
		{"a hard link that climbs out", drivertest.Tar(t, drivertest.Hardlink("l", "../../etc/shadow")), ErrEscapes},
		{"a hard link to what only the host has", drivertest.Tar(t, drivertest.Hardlink("l", "/etc/passwd")), ErrCorrupt},
		{"a link in place of the destination", drivertest.Tar(t, drivertest.Symlink(".", "/etc")), ErrEscapes},
		{"a file below a file", drivertest.Tar(t, file("a", 0o644, ""), file("a/b", 0o644, "")), ErrCorrupt},
		{"a file below a link that leads nowhere", drivertest.Tar(t, drivertest.Symlink("a", "b"), file("a/b", 0o644, "")), ErrCorrupt},
		{"more bytes than allowed", bomb, ErrTooLarge},
		{"more bytes than allowed, gzipped", gzipped(t, bomb), ErrTooLarge},
		{"more bytes than allowed, zstded", zstded(t, bomb), ErrTooLarge},
		{"more entries than allowed", drivertest.Tar(t, many...), ErrTooLarge},
		{"more directories than allowed", drivertest.Tar(t, file(strings.Repeat("d/", 120)+"f", 0o644, "")), ErrTooLarge},
		{"a path deeper than allowed", drivertest.Tar(t, file(strings.Repeat("d/", 300)+"f", 0o644, "")), ErrTooLarge},
		{"an empty archive", nil, ErrCorrupt},
		{"what is no archive", []byte(strings.Repeat("no archive ", 200)), ErrCorrupt},
		{"a tar cut in a file", drivertest.Tar(t, file("a", 0o644, strings.Repeat("x", 9000)))[:4000], ErrCorrupt},
		{"a gzip cut in the middle", gzipped(t, simple(t))[:60], ErrCorrupt},
		{"a gzip cut in its last bytes", gzipped(t, simple(t))[:len(gzipped(t, simple(t)))-2], ErrCorrupt},
		{"a zstd cut in the middle", zstded(t, simple(t))[:60], ErrCorrupt},
		{"bzip2", []byte("BZh91AY&SY"), ErrCorrupt},
		{"a zip cut at its end", zipped(t)[:len(zipped(t))-30], ErrCorrupt},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if _, err := extractTo(t, t.TempDir(), small, row.archive); !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

func TestExtract_keepsGoing(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 200)
	archive := drivertest.Tar(t,
		drivertest.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		drivertest.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}},
		drivertest.File("/absolute", 0o644, "1"), drivertest.File("./a/./b", 0o644, "2"), drivertest.File(".wh.plain", 0o644, "3"),
		drivertest.Symlink("in", "a"), drivertest.File("in/side", 0o644, "4"), drivertest.File(long+"/"+long, 0o644, "5"),
		drivertest.File("twice", 0o644, "old"), drivertest.File("twice", 0o600, "new"),
		drivertest.File("was/a/directory", 0o600, ""), drivertest.File("was", 0o600, "file"),
		drivertest.File("becomes", 0o600, ""), drivertest.Dir("becomes", 0o700),
	)
	dir := t.TempDir()
	stats, err := extractTo(t, dir, mine(Auto), archive)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`-rw-r--r-- .wh.plain "3"`, "drwxr-xr-x a", `-rw-r--r-- a/b "2"`, `-rw-r--r-- a/side "4"`, `-rw-r--r-- absolute "1"`,
		"drwx------ becomes", "prw------- fifo", "Lrwxrwxrwx in -> a", "drwxr-xr-x " + long, `-rw-r--r-- ` + long + "/" + long + ` "5"`,
		`-rw------- twice "new"`, `-rw------- was "file"`,
	}
	if diff := cmp.Diff(want, list(t, dir)); diff != "" {
		t.Error(diff)
	}
	if stats.Skipped != 1 {
		t.Errorf("skipped %d entries, want the device", stats.Skipped)
	}
}

func TestExtract_sparse(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("\x00", 1<<20) + "end" + strings.Repeat("\x00", 1<<20)
	dir := t.TempDir()
	if _, err := extractTo(t, dir, mine(Auto), drivertest.Tar(t, drivertest.File("holes", 0o644, body))); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "holes"))
	if err != nil || string(got) != body {
		t.Errorf("a file with holes came back as %d bytes, %v", len(got), err)
	}
}

func TestExtract_whiteouts(t *testing.T) {
	t.Parallel()
	job := mine(Auto)
	job.Whiteouts = true
	dir := t.TempDir()
	archive := drivertest.Tar(t,
		drivertest.File("a/.wh.gone", 0o644, ""), drivertest.File("a/.wh.kept", 0o644, ""), drivertest.File("a/kept", 0o644, "k"),
		drivertest.File("b/mine", 0o644, "m"), drivertest.File(".wh.b", 0o644, ""), drivertest.File("c/.wh..wh..opq", 0o644, ""),
		drivertest.File(".wh.d", 0o644, ""), drivertest.File("d/new", 0o644, "n"), drivertest.File(".wh..wh.plnk", 0o644, ""),
		drivertest.Dir("srv/run", 0o755), drivertest.Symlink("run", "/srv/run"), drivertest.File("run/inside", 0o644, "i"), drivertest.File("tmp/x", 0o644, ""),
	)
	if _, err := extractTo(t, dir, job, archive); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"drwxr-xr-x a", "Dc--------- a/gone", `-rw-r--r-- a/kept "k"`, "drwxr-xr-x b", `-rw-r--r-- b/mine "m"`, "drwxr-xr-x c",
		"drwxr-xr-x d", `-rw-r--r-- d/new "n"`, "Lrwxrwxrwx run -> /srv/run", "drwxr-xr-x srv", "drwxr-xr-x srv/run",
		`-rw-r--r-- srv/run/inside "i"`, "dtrwxrwxrwx tmp", `-rw-r--r-- tmp/x ""`,
	}
	if diff := cmp.Diff(want, list(t, dir)); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]bool{"a": false, "b": true, "c": true, "d": true} {
		var value [8]byte
		n, err := unix.Getxattr(filepath.Join(dir, name), opaqueAttribute, value[:])
		if got := err == nil && string(value[:n]) == "y"; got != want {
			t.Errorf("%s is opaque: %v, want %v", name, got, want)
		}
	}
}

func TestExtract_refusesWhiteoutsOf(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]string{"the directory itself": ".wh..", "its parent": ".wh...", "nothing": ".wh."} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := mine(Auto)
			job.Whiteouts = true
			_, err := extractTo(t, t.TempDir(), job, drivertest.Tar(t, drivertest.File(base, 0o644, "")))
			if !errors.Is(err, ErrEscapes) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func zipped(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, entry := range []struct {
		name, body string
		mode       fs.FileMode
	}{{"bin/run", "#!", 0o755}, {"plain", "text", 0}, {"dir/", "", fs.ModeDir | 0o700}, {"link", "plain", fs.ModeSymlink | 0o777}} {
		header := &zip.FileHeader{Name: entry.name, Method: zip.Deflate}
		if entry.mode != 0 {
			header.SetMode(entry.mode)
		}
		file, err := w.CreateHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write([]byte(entry.body)); err != nil && entry.body != "" {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestExtract_zip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	job := mine(Auto)
	job.Prefix = "home/vcap/app"
	if _, err := extractTo(t, dir, job, zipped(t)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"drwxr-xr-x home", "drwxr-xr-x home/vcap", "drwxr-xr-x home/vcap/app", "drwxr-xr-x home/vcap/app/bin",
		`-rwxr-xr-x home/vcap/app/bin/run "#!"`, "drwx------ home/vcap/app/dir", "Lrwxrwxrwx home/vcap/app/link -> plain",
		`-rw-r--r-- home/vcap/app/plain "text"`,
	}
	if diff := cmp.Diff(want, list(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestExtract_prefixLeavesTmpToEverybody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	job := mine(Auto)
	job.Prefix = "tmp/lifecycle"
	if _, err := extractTo(t, dir, job, zipped(t)); err != nil {
		t.Fatal(err)
	}
	if got := list(t, dir)[0]; got != "dtrwxrwxrwx tmp" {
		t.Errorf("above a root file system this tree gives %q", got)
	}
}

// bomb is a gzip stream of zeros in one file, never whole in memory.
func bomb(t *testing.T, size int64) io.Reader {
	t.Helper()
	out, in := io.Pipe()
	go func() {
		zip, _ := gzip.NewWriterLevel(in, gzip.BestSpeed)
		archive := tar.NewWriter(zip)
		_ = archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: size})
		buf := make([]byte, 64<<10)
		for written := int64(0); written < size; written += int64(len(buf)) {
			if _, err := archive.Write(buf); err != nil {
				break
			}
		}
		_ = in.CloseWithError(errors.Join(archive.Close(), zip.Close()))
	}()
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// TestExtract_memory is not parallel: it looks at what the whole process has allocated.
func TestExtract_memory(t *testing.T) {
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	stats, err := extract(mine(Auto), root, bomb(t, 256<<20))
	runtime.ReadMemStats(&after)
	if err != nil || stats.Bytes != 256<<20 {
		t.Errorf("wrote %d bytes, %v", stats.Bytes, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("allocated %d bytes for a file of %d", used, stats.Bytes)
	}
}

func TestExtract_zstdWindowBomb(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(128<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, io.LimitReader(bomb(t, 1<<20), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := extractTo(t, t.TempDir(), mine(TarZst), buf.Bytes()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"a/b", "/etc/passwd", "../x", "a/../../b", ".", "..", "", "a//b/", "./.", "\x00", "..a/.b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		out, err := clean(name)
		if err == nil && !filepath.IsLocal(out) {
			t.Errorf("%q became %q", name, out)
		}
	})
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte("PK\x05\x06"))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, raw []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "dest")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		job := mine(Auto)
		job.MaxBytes, job.MaxEntries = 1<<20, 100
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = extract(job, root, bytes.NewReader(raw))
		entries, err := os.ReadDir(outer)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the destination: %v, %v", entries, err)
		}
	})
}
