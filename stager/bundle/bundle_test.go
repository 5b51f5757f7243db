package bundle_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/stager/bundle"
)

func TestWriteTGZ(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "any-name")
	if err := os.WriteFile(binary, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		kind bundle.Lifecycle
		want []string
	}{
		{bundle.BuildpackLifecycle(), []string{
			"-rwxr-xr-x drover-lifecycle program", "Lrwxr-xr-x builder drover-lifecycle", "Lrwxr-xr-x launcher drover-lifecycle",
			"Lrwxr-xr-x healthcheck drover-lifecycle", "Lrwxr-xr-x shell drover-lifecycle", "Lrwxr-xr-x diego-sshd drover-lifecycle",
		}},
		{bundle.DockerLifecycle(), []string{
			"-rwxr-xr-x drover-lifecycle program", "Lrwxr-xr-x builder drover-lifecycle", "Lrwxr-xr-x launcher drover-lifecycle",
			"Lrwxr-xr-x healthcheck drover-lifecycle", "Lrwxr-xr-x diego-sshd drover-lifecycle", "-rwxr-xr-x lifecycle.txt docker\n",
		}},
	} {
		t.Run(row.kind.File, func(t *testing.T) {
			var once, again bytes.Buffer
			if err := errors.Join(bundle.WriteTGZ(&once, binary, row.kind), bundle.WriteTGZ(&again, binary, row.kind)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(once.Bytes(), again.Bytes()) {
				t.Error("equal binaries make different bundles")
			}
			if diff := cmp.Diff(row.want, list(t, &once)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if err := bundle.WriteTGZ(io.Discard, binary+"-none", bundle.DockerLifecycle()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a binary: %v", err)
	}
}

func list(t *testing.T, r io.Reader) []string {
	t.Helper()
	zr, err := gzip.NewReader(r)
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
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%v %s %s%s", h.FileInfo().Mode(), h.Name, h.Linkname, text))
	}
}

func TestStaticBuildpack_isMadeOnce(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "new")
	first, err := bundle.StaticBuildpack(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := bundle.StaticBuildpack(t.Context(), cache)
	if err != nil || second != first {
		t.Fatalf("got %s, %v; want %s", second, err, first)
	}
	after, err := os.Stat(second)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("made again: %v", err)
	}
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 {
		t.Errorf("leftovers: %v, %v", entries, err)
	}
	want := []string{
		"-rwxr-xr-x bin/detect", "-rwxr-xr-x bin/finalize", "-rwxr-xr-x bin/release", "-rwxr-xr-x bin/supply",
		"-rw-r--r-- VERSION", "-rw-r--r-- lib/root.sh", "-rwxr-xr-x lib/static-server",
	}
	if diff := cmp.Diff(want, zipped(t, first), cmp.Transformer("set", set)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func set(list []string) map[string]bool {
	out := map[string]bool{}
	for _, item := range list {
		out[item] = true
	}
	return out
}

func zipped(t *testing.T, file string) []string {
	t.Helper()
	zr, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close() //nolint:errcheck // Only read.
	var out []string
	for _, f := range zr.File {
		out = append(out, fmt.Sprintf("%v %s", f.Mode(), f.Name))
	}
	return out
}

func TestPackBuildpack(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "bp.zip")
	if err := bundle.PackBuildpack(dir, out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without bin: %v", err)
	}
	for name, mode := range map[string]fs.FileMode{"bin/detect": 0o600, "tool": 0o700, "data": 0o600} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := bundle.PackBuildpack(dir, out); err != nil {
		t.Fatal(err)
	}
	want := []string{"-rwxr-xr-x bin/detect", "-rwxr-xr-x tool", "-rw-r--r-- data"}
	if diff := cmp.Diff(want, zipped(t, out), cmp.Transformer("set", set)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNodeBuildpack_withoutNPM(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := bundle.NodeBuildpack(t.Context(), t.TempDir()); !errors.Is(err, bundle.ErrNoNPM) {
		t.Errorf("got %v, want ErrNoNPM", err)
	}
}

// TestNodeBuildpack_wrongDownload: an npm that delivers something else is not believed.
func TestNodeBuildpack_wrongDownload(t *testing.T) {
	fake, err := filepath.Abs("testdata/fake-npm")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", fake+":"+os.Getenv("PATH"))
	cache := t.TempDir()
	_, err = bundle.NodeBuildpack(t.Context(), cache)
	if err == nil || !strings.Contains(err.Error(), "has checksum sha512-") {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(cache); err != nil || len(entries) != 0 {
		t.Errorf("the download is kept: %v, %v", entries, err)
	}
}

// TestSampleApps: they are whole, and their lock file names no registry, so that each site's own is asked.
func TestSampleApps(t *testing.T) {
	for name, app := range map[string]fs.FS{"package.json": bundle.SampleNodeApp(), "server.js": bundle.SampleNodeApp(), "public/index.html": bundle.SampleStaticApp()} {
		if _, err := fs.Stat(app, name); err != nil {
			t.Error(err)
		}
	}
	lock, err := fs.ReadFile(bundle.SampleNodeApp(), "package-lock.json")
	if err != nil || bytes.Contains(lock, []byte(`"resolved"`)) || bytes.Contains(lock, []byte("://")) {
		t.Errorf("%v: %s", err, lock)
	}
}
