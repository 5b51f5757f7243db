package stack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func maker(t *testing.T) Maker {
	t.Helper()
	return Maker{Cache: t.TempDir(), Progress: func(string) {}}
}

func TestOnce(t *testing.T) {
	m := maker(t)
	made := 0
	work := func(_ context.Context, dir string) error {
		made++
		return os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	}
	first, err := m.once(t.Context(), "kind", []string{"a"}, work)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.once(t.Context(), "kind", []string{"a"}, work)
	if err != nil || again != first || made != 1 {
		t.Errorf("the same recipe gave %s after %s, made %d times, %v", again, first, made, err)
	}
	other, err := m.once(t.Context(), "kind", []string{"b"}, work)
	if err != nil || other == first {
		t.Errorf("another recipe gave %s, %v", other, err)
	}
}

func TestOnce_failure(t *testing.T) {
	m := maker(t)
	broken := errors.New("no mirror")
	_, err := m.once(t.Context(), "kind", nil, func(_ context.Context, dir string) error {
		return errors.Join(broken, os.WriteFile(filepath.Join(dir, "log"), []byte("why"), 0o600))
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	_, log, _ := strings.Cut(err.Error(), "(log: ")
	if text, err := os.ReadFile(strings.TrimSuffix(log, ")")); err != nil || string(text) != "why" {
		t.Errorf("log %q, %v", text, err)
	}
	left, err := filepath.Glob(filepath.Join(m.Cache, "*.new"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestUnpack(t *testing.T) {
	m := maker(t)
	source := t.TempDir()
	if err := os.MkdirAll(filepath.Join(source, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "etc/passwd"), []byte("vcap"), 0o644); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "stack.tgz")
	if err := pack(t.Context(), source, archive); err != nil {
		t.Fatal(err)
	}
	rootfs, err := m.Unpack(t.Context(), archive)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(rootfs, "etc/passwd")); err != nil || string(text) != "vcap" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := m.Unpack(t.Context(), "/no/such.tar"); err == nil {
		t.Error("a missing archive was unpacked")
	}
}

func TestImage(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "index"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	layer := filepath.Join(dir, "layer.tgz")
	if err := pack(t.Context(), source, layer); err != nil {
		t.Fatal(err)
	}
	if err := writeImage(filepath.Join(dir, "image"), layer); err != nil {
		t.Fatal(err)
	}
	image, err := readImage(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil || config.Config.Entrypoint[0] != "/usr/sbin/nginx" {
		t.Errorf("config %+v, %v", config, err)
	}
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	found := false
	for files := tar.NewReader(content); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found = found || strings.TrimPrefix(header.Name, "./") == "index"
	}
	if !found {
		t.Error("the image lacks its file")
	}
}

func TestTeller_showsALineNowAndThen(t *testing.T) {
	var told []string
	clock := time.Unix(100, 0)
	watch := &teller{what: "stack", tell: func(message string) { told = append(told, message) }, now: func() time.Time { return clock }}
	for _, text := range []string{"I: Retrieving li", "bc6\nI: Retrieving zlib\n", "W: no matter\n"} {
		if _, err := watch.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	clock = clock.Add(tellPause)
	if _, err := watch.Write([]byte("W: no matter\nI: Unpacking libc6...\n")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stack: retrieving libc6", "stack: unpacking libc6"}, told); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
