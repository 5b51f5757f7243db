package droplet_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover/stager/droplet"
)

// tree makes files of names and contents; a content "-> x" is a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t *testing.T, trees ...droplet.Tree) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "new", "droplet.tgz")
	if err := droplet.Pack(t.Context(), file, trees...); err != nil {
		t.Fatal(err)
	}
	return file
}

// list describes an archive, one line for each entry.
func list(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%c %s %s %d:%d %s:%s %q", h.Typeflag, h.Name, h.Linkname, h.Uid, h.Gid, h.Uname, h.Gname, content))
	}
}

func TestPack(t *testing.T) {
	contents := tree(t, map[string]string{"staging_info.yml": "{}"})
	app := tree(t, map[string]string{"a": "one", "dir/b": "two", "dangling": "-> ../nowhere", "loop": "-> loop", "outside": "-> /etc/passwd"})
	if err := os.Link(filepath.Join(app, "a"), filepath.Join(app, "hard")); err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(app, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // It never accepted.
	got := list(t, pack(t, droplet.Tree{Name: ".", Dir: contents}, droplet.Tree{Name: "app", Dir: app}))
	const owner = "2000:2000 vcap:vcap"
	want := []string{
		`5 ./  ` + owner + ` ""`,
		`0 ./staging_info.yml  ` + owner + ` "{}"`,
		`5 ./app/  ` + owner + ` ""`,
		`0 ./app/a  ` + owner + ` "one"`,
		`2 ./app/dangling ../nowhere ` + owner + ` ""`,
		`5 ./app/dir/  ` + owner + ` ""`,
		`0 ./app/dir/b  ` + owner + ` "two"`,
		`1 ./app/hard ./app/a ` + owner + ` ""`,
		`2 ./app/loop loop ` + owner + ` ""`,
		`2 ./app/outside /etc/passwd ` + owner + ` ""`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPack_unpacksByTar: long names, modes and times survive, and tar agrees about the format.
func TestPack_unpacksByTar(t *testing.T) {
	long := strings.Repeat("long/", 60) + "näme"
	dir := tree(t, map[string]string{long: "x", "program": "#!/bin/sh\n"})
	program := filepath.Join(dir, "program")
	when := time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)
	if err := errors.Join(os.Chmod(program, 0o754), os.Chtimes(program, when, when)); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "tar", "-xzf", pack(t, droplet.Tree{Name: ".", Dir: dir}), "-C", out, "--no-same-owner", "--same-permissions")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, text)
	}
	if text, err := os.ReadFile(filepath.Join(out, long)); string(text) != "x" || err != nil {
		t.Errorf("%s: %q, %v", long, text, err)
	}
	info, err := os.Stat(filepath.Join(out, "program"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o754 || !info.ModTime().Equal(when) {
		t.Errorf("program: %v, %v", info.Mode(), info.ModTime())
	}
}

func TestPack_largerThanABlock(t *testing.T) {
	want := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB.
	got := list(t, pack(t, droplet.Tree{Name: ".", Dir: tree(t, map[string]string{"large": want})}))
	if len(got) != 2 || !strings.Contains(got[1], want) {
		t.Errorf("got %d entries of %d bytes", len(got), len(got[len(got)-1]))
	}
}

func TestPack_failureLeavesNothing(t *testing.T) {
	dir := tree(t, map[string]string{"a": "x"})
	for _, row := range []struct {
		promise string
		cancel  bool
		tree    droplet.Tree
		want    error
	}{
		{"a missing tree", false, droplet.Tree{Name: ".", Dir: filepath.Join(dir, "none")}, fs.ErrNotExist},
		{"a cancelled context", true, droplet.Tree{Name: ".", Dir: dir}, context.Canceled},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if row.cancel {
			cancel()
		}
		file := filepath.Join(t.TempDir(), "droplet")
		if err := droplet.Pack(ctx, file, row.tree); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.promise, err, row.want)
		}
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the archive is still there: %v", row.promise, err)
		}
	}
}

// BenchmarkPack packs the directory that DROVER_BENCH_TREE names, else the Go toolchain's own programs and sources.
func BenchmarkPack(b *testing.B) {
	dir := os.Getenv("DROVER_BENCH_TREE")
	if dir == "" {
		out, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT").Output()
		if err != nil {
			b.Fatal(err)
		}
		dir = filepath.Join(strings.TrimSpace(string(out)), "bin")
	}
	for b.Loop() {
		file := filepath.Join(b.TempDir(), "droplet")
		if err := droplet.Pack(b.Context(), file, droplet.Tree{Name: ".", Dir: dir}); err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/1e6, "MB-archive")
	}
}
