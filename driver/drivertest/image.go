package drivertest

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"drover/driver"
)

// Entry is one member of a tar archive. Size is filled in from Body.
type Entry struct {
	tar.Header
	Body []byte
}

// File is a regular file's entry.
func File(name string, mode int64, body string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, ModTime: time.Unix(1e9, 0)}, Body: []byte(body)}
}

// Dir is a directory's entry.
func Dir(name string, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: mode, ModTime: time.Unix(1e9, 0)}}
}

// Symlink is a symbolic link's entry.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Hardlink is the entry of a second name for an earlier entry.
func Hardlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// Owned returns the entry with another owner.
func (e Entry) Owned(uid, gid int) Entry {
	e.Uid, e.Gid = uid, gid
	return e
}

// Tar writes an archive of the entries, in order, with no check of what they say.
func Tar(tb testing.TB, entries ...Entry) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, entry := range entries {
		header := entry.Header
		if header.Size == 0 {
			header.Size = int64(len(entry.Body))
		}
		if err := w.WriteHeader(&header); err != nil {
			tb.Fatalf("tar header %s: %v", header.Name, err)
		}
		if _, err := w.Write(entry.Body); err != nil {
			tb.Fatalf("tar body %s: %v", header.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// RootFSTar is what RootFS makes, as an image layer.
func RootFSTar(tb testing.TB) []byte {
	tb.Helper()
	probe, err := os.ReadFile(BuildProgram(tb, ProbePackage))
	if err != nil {
		tb.Fatal(err)
	}
	var entries []Entry
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var"} {
		entries = append(entries, Dir(dir, 0o755))
	}
	entries = append(entries, Dir("tmp", 0o1777), Dir("home/vcap", 0o755).Owned(driver.VcapID, driver.VcapID))
	entries = append(entries, File("bin/probe", 0o755, string(probe)))
	return Tar(tb, append(entries, users()...)...)
}

// RootFSImage is an image of one layer: what RootFS makes.
func RootFSImage(tb testing.TB, config driver.ImageConfig) v1.Image {
	tb.Helper()
	return Image(tb, config, RootFSTar(tb))
}

// Image makes an image for linux on this machine's architecture of uncompressed layers, lowest first.
func Image(tb testing.TB, config driver.ImageConfig, layers ...[]byte) v1.Image {
	tb.Helper()
	image := empty.Image
	for _, raw := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
		if err != nil {
			tb.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			tb.Fatal(err)
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		tb.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{
		Env: config.Env, User: config.User, Entrypoint: config.Entrypoint, Cmd: config.Cmd,
		WorkingDir: config.WorkingDir, StopSignal: config.StopSignal, ExposedPorts: map[string]struct{}{},
	}
	for _, port := range config.ExposedPorts {
		file.Config.ExposedPorts[port] = struct{}{}
	}
	for _, volume := range config.Volumes {
		if file.Config.Volumes == nil {
			file.Config.Volumes = map[string]struct{}{}
		}
		file.Config.Volumes[volume] = struct{}{}
	}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		tb.Fatal(err)
	}
	return image
}

// Serve starts an empty in-memory registry on loopback that speaks plain http, and returns its host:port.
func Serve(tb testing.TB) string {
	tb.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	tb.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Push puts an image into a registry and returns its full reference.
func Push(tb testing.TB, host, repository string, image v1.Image) string {
	tb.Helper()
	ref, err := name.ParseReference(host + "/" + repository)
	if err != nil {
		tb.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithContext(tb.Context())); err != nil {
		tb.Fatalf("push %v: %v", ref, err)
	}
	return ref.String()
}
