//go:build root

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

// real makes a store that unpacks.
func real(tb testing.TB, change func(*Options)) *Store {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return open(tb, func(o *Options) {
		o.Unpacker = []string{self, asHelper}
		if change != nil {
			change(o)
		}
	})
}

// nothingLeft fails when a store holds a layer, an archive or unfinished work.
func nothingLeft(t *testing.T, s *Store) {
	t.Helper()
	usage, err := s.Usage()
	if err != nil || usage.Layers != 0 || usage.Archives != 0 {
		t.Errorf("left behind: %+v, %v", usage, err)
	}
	entries, err := os.ReadDir(s.staging)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// proxy stands before a registry, and may change its answers.
type proxy struct {
	host  string
	blobs atomic.Int32
	all   atomic.Int32
}

func newProxy(t *testing.T, upstream string, change func(http.ResponseWriter, *http.Request) bool) *proxy {
	t.Helper()
	p := &proxy{}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: upstream})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.all.Add(1)
		if strings.Contains(r.URL.Path, "/blobs/") {
			p.blobs.Add(1)
		}
		if change == nil || !change(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	p.host = strings.TrimPrefix(server.URL, "http://")
	return p
}

func sample(t *testing.T) v1.Image {
	t.Helper()
	config := driver.ImageConfig{Env: []string{"A=b"}, User: "vcap", Entrypoint: []string{"/bin/probe"}, Cmd: []string{"env"}, WorkingDir: "/srv",
		StopSignal: "SIGINT", ExposedPorts: []string{"53/udp", "8080/tcp"}}
	return drivertest.Image(t, config,
		drivertest.Tar(t, drivertest.Dir("etc", 0o755), drivertest.File("etc/a", 0o644, "1"), drivertest.File("etc/gone", 0o644, "1")),
		drivertest.Tar(t, drivertest.File("etc/.wh.gone", 0o644, ""), drivertest.File("srv/b", 0o600, strings.Repeat("2", 1<<20)).Owned(2000, 2000)))
}

func TestPull(t *testing.T) {
	s := real(t, nil)
	front := newProxy(t, drivertest.Serve(t), nil)
	image := sample(t)
	ref := drivertest.Push(t, front.host, "team/app:1", image)
	var last Progress
	got, err := s.Pull(t.Context(), Request{Ref: ref}, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	want := driver.ImageConfig{Env: []string{"A=b"}, User: "vcap", Entrypoint: []string{"/bin/probe"}, Cmd: []string{"env"}, WorkingDir: "/srv",
		StopSignal: "SIGINT", ExposedPorts: []string{"53/udp", "8080/tcp"}}
	if diff := cmp.Diff(want, got.Config); diff != "" {
		t.Error(diff)
	}
	digest, err := image.Digest()
	if err != nil || got.Digest != digest.String() || got.Ref != front.host+"/team/app@"+digest.String() {
		t.Errorf("got %s and %s, %v", got.Ref, got.Digest, err)
	}
	if last.Done == 0 || last.Done != last.Total {
		t.Errorf("the last progress was %+v", last)
	}
	var stat unix.Stat_t
	if err := unix.Lstat(filepath.Join(got.Layers[1].Dir, "srv/b"), &stat); err != nil || stat.Uid != 1e9+2000 || stat.Size != 1<<20 {
		t.Errorf("owner %d, size %d, %v", stat.Uid, stat.Size, err)
	}
	if err := unix.Lstat(filepath.Join(got.Layers[1].Dir, "etc/gone"), &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFCHR {
		t.Errorf("a whiteout is %o, %v", stat.Mode, err)
	}

	front.all.Store(0)
	again, err := s.Pull(t.Context(), Request{Ref: got.Ref}, nil)
	if err != nil || front.all.Load() != 0 {
		t.Errorf("a pinned image that is here took %d requests, %v", front.all.Load(), err)
	}
	if diff := cmp.Diff(got, again, cmpopts.IgnoreFields(Image{}, "Times")); diff != "" {
		t.Error(diff)
	}
	if got.Times.Resolve == 0 || got.Times.Pull == 0 || got.Times.Unpack == 0 || again.Times.Pull != 0 {
		t.Errorf("it took %+v, and then %+v", got.Times, again.Times)
	}
	second := real(t, func(o *Options) { o.Dir = s.options.Dir })
	if again, err = second.Pull(t.Context(), Request{Ref: got.Ref}, nil); err != nil || front.all.Load() != 0 {
		t.Errorf("after a restart: %d requests, %v", front.all.Load(), err)
	}
	if err := os.RemoveAll(again.Layers[0].Dir); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Pull(t.Context(), Request{Ref: got.Ref}, nil); err != nil || !isDir(got.Layers[0].Dir) {
		t.Errorf("a layer that is missing was not pulled again: %v", err)
	}
}

func TestPull_index(t *testing.T) {
	host := drivertest.Serve(t)
	image := sample(t)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	ref, err := name.ParseReference(host + "/team/multi:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	got, err := real(t, nil).Pull(t.Context(), Request{Ref: ref.Name()}, nil)
	digest, _ := image.Digest()
	if err != nil || got.Digest != digest.String() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPull_once(t *testing.T) {
	s := real(t, nil)
	front := newProxy(t, drivertest.Serve(t), nil)
	ref := drivertest.Push(t, front.host, "team/app:1", sample(t))
	front.blobs.Store(0)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	// The configuration is small and may be read by each; the two layers are read once.
	if got := front.blobs.Load(); got > 22 {
		t.Errorf("%d blobs were read by 20 pulls of two layers", got)
	}
}

func TestPull_badContent(t *testing.T) {
	upstream := drivertest.Serve(t)
	image := sample(t)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := layers[1].Digest()
	size, _ := layers[1].Size()
	other, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	good, err := io.ReadAll(other)
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Push(t, upstream, "team/app:1", image)
	var attempts atomic.Int32
	for _, row := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		want   error
	}{
		{"another layer's bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) }, ErrChecksum},
		{"no bytes", func(http.ResponseWriter, *http.Request) {}, nil},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("garbage", 1000))
		}, nil},
		{"more than announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "chunked")
			_, _ = io.Copy(w, io.LimitReader(endless{}, 64<<20))
		}, nil},
		{"an answer that is cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			_, _ = w.Write(good[:10])
		}, ErrUnreachable},
		{"another size", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(good)
		}, ErrChecksum},
		{"nothing more after some bytes", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(good[:10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, ErrUnreachable},
		{"not found", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, ErrNotFound},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := real(t, nil)
			front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/blobs/"+digest.String()) {
					return false
				}
				attempts.Add(1)
				row.answer(w, r)
				return true
			})
			_, err := s.Pull(t.Context(), Request{Ref: front.host + "/team/app:1"}, nil)
			if err == nil || row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
			if isDir(s.layerDir(mustDiffID(t, layers[1]))) {
				t.Error("the layer is used")
			}
			entries, err := os.ReadDir(s.staging)
			if err != nil || len(entries) != 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

func mustDiffID(t *testing.T, layer v1.Layer) v1.Hash {
	t.Helper()
	diffID, err := layer.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	return diffID
}

func TestPull_wrongDiffID(t *testing.T) {
	host := drivertest.Serve(t)
	image := sample(t)
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.RootFS.DiffIDs[1] = mustHash(t, "sha256:"+strings.Repeat("ab", 32))
	lying, err := mutate.ConfigFile(image, file)
	if err != nil {
		t.Fatal(err)
	}
	s := real(t, nil)
	if _, err := s.Pull(t.Context(), Request{Ref: drivertest.Push(t, host, "team/lie:1", lying)}, nil); !errors.Is(err, ErrChecksum) {
		t.Errorf("got %v", err)
	}
	if isDir(s.layerDir(file.RootFS.DiffIDs[1])) {
		t.Error("the layer is used")
	}
}

func TestPull_recoversFromACut(t *testing.T) {
	var cut atomic.Bool
	front := newProxy(t, drivertest.Serve(t), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || cut.Swap(true) {
			return false
		}
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, "x")
		return true
	})
	ref := drivertest.Push(t, front.host, "team/app:1", drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("a", 0o644, "1"))))
	s := real(t, nil)
	if _, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil && !IsTemporary(err) {
		t.Error(err)
	}
	if _, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
		t.Error(err)
	}
}

func TestPull_private(t *testing.T) {
	front := newProxy(t, drivertest.Serve(t), func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); r.Method == http.MethodGet && (user != "u" || password != "right") {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
		return false
	})
	ref := front.host + "/team/app:1"
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	login := authenticator(parsed, &Auth{Username: "u", Password: "right"})
	if err := remote.Write(parsed, sample(t), remote.WithAuth(login)); err != nil {
		t.Fatal(err)
	}
	s := real(t, nil)
	for _, auth := range []*Auth{nil, {Username: "u", Password: "wrong-secret"}, {Username: "u", Password: "right", ServerAddress: "elsewhere.example.com"}} {
		if _, err := s.Pull(t.Context(), Request{Ref: ref, Auth: auth}, nil); !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := s.Pull(t.Context(), Request{Ref: ref, Auth: &Auth{Username: "u", Password: "right"}}, nil); err != nil {
		t.Error(err)
	}
}

func TestPull_diskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := real(t, func(o *Options) { o.Dir = filepath.Join(dir, "images") })
	big := strings.Repeat("0123456789abcdef", 1<<19)
	ref := drivertest.Push(t, drivertest.Serve(t), "team/big:1", drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("big", 0o644, big))))
	_, err := s.Pull(t.Context(), Request{Ref: ref}, nil)
	if !errors.Is(err, ErrFull) || !IsTemporary(err) || !strings.Contains(err.Error(), ref) {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, s)
}

func TestPull_cancelled(t *testing.T) {
	stuck := make(chan struct{}, 8)
	front := newProxy(t, drivertest.Serve(t), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && r.URL.Query().Get("x") == "" && strings.Contains(r.Header.Get("User-Agent"), "drover") {
			stuck <- struct{}{}
			<-r.Context().Done()
			return true
		}
		return false
	})
	ref := drivertest.Push(t, front.host, "team/app:1", sample(t))
	s := real(t, nil)
	s.tune.answer = time.Minute
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("nobody waits")
	go func() {
		<-stuck
		cancel(gone)
	}()
	if _, err := s.Pull(ctx, Request{Ref: ref}, nil); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, s)
}

// TestPull_killed kills a process in the middle of a layer, after the child has begun to write files.
func TestPull_killed(t *testing.T) {
	var once atomic.Bool
	half := make(chan struct{})
	upstream := drivertest.Serve(t)
	image := drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("a", 0o644, "1"), drivertest.File("b", 0o644, "2")))
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := layers[0].Digest()
	front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest.String()) || once.Swap(true) {
			return false
		}
		_, _ = w.Write(droplet(t, "one")[:64])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done()
		return true
	})
	ref := strings.Replace(drivertest.Push(t, upstream, "team/app:1", image), upstream, front.host, 1)
	s := real(t, nil)
	cmd := exec.CommandContext(t.Context(), s.options.Unpacker[0], asPuller, s.options.Dir, ref)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-half:
	case <-time.After(20 * time.Second):
		t.Error("the layer was never asked for")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if isDir(s.layerDir(mustDiffID(t, layers[0]))) {
		t.Error("half a layer is used")
	}
	again, err := Open(s.options)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(s.options.Dir, "staging"))
	if err != nil || len(entries) != 2 { // this test's two
		t.Errorf("in staging: %v, %v", entries, err)
	}
	if _, err := again.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkPull(b *testing.B) {
	var entries []drivertest.Entry
	body := strings.Repeat("some text that can be packed, 0123456789\n", 200)
	for dir := range 40 {
		for file := range 50 {
			entries = append(entries, drivertest.File(fmt.Sprintf("usr/lib/d%d/f%d", dir, file), 0o644, body[file:]))
		}
	}
	raw := drivertest.Tar(b, entries...)
	ref := drivertest.Push(b, drivertest.Serve(b), "bench/layer:1", drivertest.Image(b, driver.ImageConfig{}, raw))
	s := real(b, nil)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := s.Pull(b.Context(), Request{Ref: ref}, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(filepath.Join(s.options.Dir, "layers")); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
