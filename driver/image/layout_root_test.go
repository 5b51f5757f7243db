//go:build root

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

// saved writes images as docker save does.
func saved(t *testing.T, path string, images map[string]v1.Image) {
	t.Helper()
	tagged := map[name.Tag]v1.Image{}
	for tag, image := range images {
		parsed, err := name.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		tagged[parsed] = image
	}
	if err := tarball.MultiWriteToFile(path, tagged); err != nil {
		t.Fatal(err)
	}
}

// ociDir writes an OCI layout.
func ociDir(t *testing.T, dir string, image v1.Image) {
	t.Helper()
	written, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = written.AppendImage(image, layout.WithAnnotations(map[string]string{refName: "one"}))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tarDir packs a directory.
func tarDir(t *testing.T, dir, file string) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, file, buf.Bytes())
}

func write(t *testing.T, file string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

func rooted(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestLoad(t *testing.T) { //nolint:gocognit // one story
	dir := t.TempDir()
	image := sample(t)
	other := drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("other", 0o644, "1")))
	saved(t, dir+"/one.tar", map[string]v1.Image{"team/app:1": image})
	saved(t, dir+"/two.tar", map[string]v1.Image{"team/app:1": image, "redis": other})
	raw, err := os.ReadFile(dir + "/two.tar")
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, _ = zip.Write(raw)
	_ = zip.Close()
	write(t, dir+"/two.tar.gz", packed.Bytes())
	ociDir(t, dir+"/oci", image)
	tarDir(t, dir+"/oci", dir+"/oci.tar")
	if err := os.Symlink("one.tar", dir+"/link.tar"); err != nil {
		t.Fatal(err)
	}
	root := rooted(t, dir)
	for _, row := range []struct {
		kind, path, ref string
		want            v1.Image
	}{
		{DockerArchive, "one.tar", "", image},
		{DockerArchive, "link.tar", "", image},
		{DockerArchive, "two.tar", "team/app:1", image},
		{DockerArchive, "two.tar", "docker.io/team/app:1", image},
		{DockerArchive, "two.tar", "redis:latest", other},
		{DockerArchive, "two.tar.gz", "team/app:1", image},
		{OCIArchive, "oci.tar", "", image},
		{OCIArchive, "oci.tar", "one", image},
		{OCIDirectory, "oci", "one", image},
	} {
		t.Run(row.kind+":"+row.path+":"+row.ref, func(t *testing.T) {
			s := real(t, nil)
			got, err := s.Load(t.Context(), Layout{Kind: row.kind, Root: root, Path: row.path, Ref: row.ref, Owner: "me"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			layers, err := row.want.Layers()
			if err != nil || len(layers) != len(got.Layers) {
				t.Fatal(len(got.Layers), err)
			}
			for n, layer := range layers {
				if diffID := mustDiffID(t, layer); got.Layers[n].Dir != s.layerDir(diffID) || !isDir(got.Layers[n].Dir) {
					t.Errorf("layer %d is %s", n, got.Layers[n].Dir)
				}
			}
			again, err := s.Load(t.Context(), Layout{Kind: row.kind, Root: root, Path: row.path, Ref: row.ref}, nil)
			if err != nil || again.Digest != got.Digest || again.Times.Pull != 0 {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

// members writes a tar file of names and texts.
func members(t *testing.T, file string, texts map[string]string) {
	t.Helper()
	var entries []drivertest.Entry
	for name, text := range texts {
		entries = append(entries, drivertest.File(name, 0o644, text))
	}
	write(t, file, drivertest.Tar(t, entries...))
}

func TestLoad_refuses(t *testing.T) {
	dir := t.TempDir()
	image := sample(t)
	ociDir(t, dir+"/oci", image)
	layers, _ := image.Layers()
	digest, _ := layers[1].Digest()
	write(t, dir+"/oci/blobs/sha256/"+digest.Hex, drivertest.Tar(t, drivertest.File("evil", 0o644, "1")))
	saved(t, dir+"/good.tar", map[string]v1.Image{"a/b:1": image, "a/c:1": drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t))})
	outside := filepath.Join(t.TempDir(), "outside.tar")
	saved(t, outside, map[string]v1.Image{"a/b:1": image})
	config, _ := image.RawConfigFile()
	members(t, dir+"/lies.tar", map[string]string{"manifest.json": `[{"Config":"c.json","Layers":["l.tar","l.tar"]}]`, "c.json": string(config), "l.tar": string(drivertest.Tar(t))})
	members(t, dir+"/missing.tar", map[string]string{"manifest.json": `[{"Config":"c.json","Layers":["../../etc/shadow","/etc/shadow"]}]`, "c.json": string(config)})
	members(t, dir+"/uneven.tar", map[string]string{"manifest.json": `[{"Config":"c.json","Layers":["l.tar"]}]`, "c.json": string(config), "l.tar": ""})
	members(t, dir+"/big.tar", map[string]string{"manifest.json": strings.Repeat(" ", maxManifest+1)})
	members(t, dir+"/none.tar", map[string]string{"x": "y"})
	write(t, dir+"/text.tar", []byte("no tar at all, but longer than a block of one: "+strings.Repeat("x", 600)))
	write(t, dir+"/empty.tar", nil)
	var many bytes.Buffer
	for n := range maxMembers + 1 {
		block := drivertest.Tar(t, drivertest.File(fmt.Sprint(n), 0o644, ""))
		_, _ = many.Write(block[:512])
	}
	write(t, dir+"/many.tar", many.Bytes())
	for link, target := range map[string]string{"/out.tar": outside, "/up.tar": "../../../etc/passwd"} {
		if err := os.Symlink(target, dir+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(dir+"/fifo.tar", 0o644); err != nil {
		t.Fatal(err)
	}
	loop := map[string]any{"manifests": []any{map[string]any{"digest": "sha256:" + strings.Repeat("a", 64), "size": 1}}}
	raw, _ := json.Marshal(loop)
	members(t, dir+"/loop.tar", map[string]string{"index.json": string(raw), "blobs/sha256/" + strings.Repeat("a", 64): string(raw)})
	root := rooted(t, dir)
	for _, row := range []struct {
		kind, path, ref string
		want            error
	}{
		{DockerArchive, "good.tar", "", ErrNotFound},
		{DockerArchive, "good.tar", "a/d:1", ErrNotFound},
		{DockerArchive, "absent.tar", "", ErrNotFound},
		{DockerArchive, "out.tar", "", ErrInvalid},
		{DockerArchive, "up.tar", "", ErrInvalid},
		{DockerArchive, "../x.tar", "", ErrInvalid},
		{DockerArchive, "fifo.tar", "", ErrInvalid},
		{DockerArchive, "oci", "", ErrInvalid},
		{DockerArchive, "lies.tar", "", ErrChecksum},
		{DockerArchive, "missing.tar", "", ErrInvalid},
		{DockerArchive, "uneven.tar", "", ErrInvalid},
		{DockerArchive, "big.tar", "", ErrInvalid},
		{DockerArchive, "none.tar", "", ErrInvalid},
		{DockerArchive, "text.tar", "", ErrInvalid},
		{DockerArchive, "empty.tar", "", ErrInvalid},
		{DockerArchive, "many.tar", "", ErrInvalid},
		{OCIArchive, "good.tar", "", ErrInvalid},
		{OCIArchive, "loop.tar", "", ErrChecksum},
		{OCIDirectory, "oci", "", ErrChecksum},
		{OCIDirectory, "oci", "two", ErrNotFound},
		{OCIDirectory, "absent", "", ErrNotFound},
	} {
		t.Run(row.kind+":"+row.path, func(t *testing.T) {
			s := real(t, nil)
			got, err := s.Load(t.Context(), Layout{Kind: row.kind, Root: root, Path: row.path, Ref: row.ref}, nil)
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.path) {
				t.Errorf("got %v, %v, want %v", got, err, row.want)
			}
			entries, err := os.ReadDir(s.staging)
			if err != nil || len(entries) != 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}
