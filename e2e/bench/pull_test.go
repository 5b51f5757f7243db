//go:build bench

package bench_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/image"
)

// puller brings an image to where it could run, and forgets it again.
type puller struct {
	pull   func(ctx context.Context, ref string) error
	forget func(ctx context.Context, ref string) error
}

// BenchmarkPullCold pulls images that are not on the node from a registry in this process, until their files lie unpacked.
func BenchmarkPullCold(b *testing.B) {
	const rounds = 4
	names, pullers := allPullers(b)
	host := drivertest.Serve(b)
	megabytes := setting(b, "DROVER_BENCH_PULL", 240)
	for _, kind := range []struct {
		what  string
		image v1.Image
	}{
		{"1 layer of 3 MB", pullImage(b, 1, 3<<20/64, 64)},
		{fmt.Sprintf("12 layers of %d MB together", megabytes), pullImage(b, 12, megabytes<<20/12/40, 40)},
		{"1 layer of 20,000 small files", pullImage(b, 1, 1500, 20_000)},
	} {
		ref := drivertest.Push(b, host, "bench/"+strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(kind.what))+":1", kind.image)
		all := map[string]samples{}
		for round := range rounds {
			for _, name := range names {
				began := time.Now()
				if err := pullers[name].pull(b.Context(), ref); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
				if round > 0 {
					all[name] = append(all[name], time.Since(began))
				}
				if err := pullers[name].forget(b.Context(), ref); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
			}
		}
		report(b, "pull", "pull-cold: "+kind.what, names, all)
		compare(b, names, all)
	}
}

// pullImage makes an image whose bytes compress to about a half, as programs do.
func pullImage(b *testing.B, layers, size, files int) v1.Image {
	b.Helper()
	random := rand.New(rand.NewPCG(1, uint64(layers*size))) //nolint:gosec // bytes to compress
	var tars [][]byte
	for layer := range layers {
		entries := []drivertest.Entry{drivertest.Dir(fmt.Sprintf("l%d", layer), 0o755)}
		body := make([]byte, size)
		for n := range files {
			for at := 0; at+16 <= size; at += 16 {
				word := random.Uint64()
				for i := range 8 {
					body[at+i] = byte(word >> (8 * i))
				}
				copy(body[at+8:at+16], "no entropy"[:8])
			}
			entries = append(entries, drivertest.File(fmt.Sprintf("l%d/%d", layer, n), 0o644, string(body)))
		}
		tars = append(tars, drivertest.Tar(b, entries...))
	}
	return drivertest.Image(b, driver.ImageConfig{Entrypoint: []string{"/bin/true"}}, tars...)
}

func allPullers(b *testing.B) ([]string, map[string]puller) {
	b.Helper()
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	names, pullers := []string{"drover"}, map[string]puller{"drover": ourPuller(b, shimPath)}
	add := func(name string, p *puller) {
		if p != nil {
			names = append(names, name)
			pullers[name] = *p
		}
	}
	if docker := startDocker(b); docker != nil {
		add(docker.version, &puller{pull: docker.pull, forget: func(ctx context.Context, ref string) error {
			return docker.call(ctx, http.MethodDelete, "/images/"+ref+"?force=1", nil, nil)
		}})
	}
	add(containerdPuller(b))
	add(podmanPuller(b))
	add(skopeoPuller(b))
	return names, pullers
}

func ourPuller(b *testing.B, shimPath string) puller {
	b.Helper()
	dir := openDir(b)
	store := filepath.Join(dir, "images")
	return puller{
		pull: func(ctx context.Context, ref string) error {
			s, err := image.Open(image.Options{Dir: store, Unpacker: []string{shimPath, "unpack"}, Stored: driver.IDRange{Host: 1 << 30, Size: 1 << 16}})
			if err != nil {
				return err
			}
			_, err = s.Pull(ctx, image.Request{Ref: ref}, func(image.Progress) {})
			return errors.Join(err, s.Close())
		},
		forget: func(context.Context, string) error { return os.RemoveAll(store) },
	}
}

// quiet runs a command; what it says is told only when it fails.
func quiet(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, lastLines(string(out), 3))
	}
	return nil
}

func containerdPuller(b *testing.B) (string, *puller) {
	b.Helper()
	dir, err := os.MkdirTemp("", "cd") //nolint:usetesting // short: its socket is below it
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	config := filepath.Join(dir, "config.toml")
	text := "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	ctr := []string{"ctr", "--address", socket, "--namespace", "bench"}
	ready := func(ctx context.Context, _ *daemon) error { return quiet(ctx, append(ctr, "version")...) }
	d := startDaemon(b, socket, ready, "containerd", "--config", config, "--address", socket,
		"--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--log-level", "error")
	if d == nil {
		return "", nil
	}
	return "containerd " + strings.Fields(d.version)[2], &puller{
		pull: func(ctx context.Context, ref string) error {
			return quiet(ctx, append(ctr, "images", "pull", "--plain-http", ref)...)
		},
		forget: func(ctx context.Context, ref string) error {
			return quiet(ctx, append(ctr, "images", "rm", "--sync", ref)...)
		},
	}
}

func podmanPuller(b *testing.B) (string, *puller) {
	b.Helper()
	name := version(b.Context(), "podman")
	if name == "" {
		b.Log("podman is not installed")
		return "", nil
	}
	dir := openDir(b)
	b.Cleanup(func() { _ = exec.Command("umount", filepath.Join(dir, "root/overlay")).Run() }) //nolint:noctx // after the benchmark
	podman := []string{"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay"}
	return name, &puller{
		pull: func(ctx context.Context, ref string) error {
			return quiet(ctx, append(podman, "pull", "--quiet", "--tls-verify=false", ref)...)
		},
		forget: func(ctx context.Context, ref string) error {
			return quiet(ctx, append(podman, "rmi", "--force", ref)...)
		},
	}
}

func skopeoPuller(b *testing.B) (string, *puller) {
	b.Helper()
	if version(b.Context(), "skopeo") == "" || version(b.Context(), "umoci") == "" {
		b.Log("skopeo or umoci is not installed")
		return "", nil
	}
	dir := openDir(b)
	layout, bundle := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle")
	return "skopeo and umoci", &puller{
		pull: func(ctx context.Context, ref string) error {
			err := quiet(ctx, "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "oci:"+layout+":1")
			if err != nil {
				return err
			}
			return quiet(ctx, "umoci", "unpack", "--image", layout+":1", bundle)
		},
		forget: func(context.Context, string) error { return errors.Join(os.RemoveAll(layout), os.RemoveAll(bundle)) },
	}
}

// BenchmarkPullHerd: ten tasks of one image that is not on the node start together. The image must cross the wire once.
func BenchmarkPullHerd(b *testing.B) {
	const herd = 10
	host := drivertest.Serve(b)
	var bytes atomic.Int64
	proxy := httptest.NewServer(countingProxy(b, host, &bytes))
	b.Cleanup(proxy.Close)
	made := pullImage(b, 4, 1<<20, 20)
	ref := drivertest.Push(b, host, "bench/herd:1", made)
	ref = strings.Replace(ref, host, strings.TrimPrefix(proxy.URL, "http://"), 1)
	layers, err := made.Layers()
	if err != nil {
		b.Fatal(err)
	}
	var size int64
	for _, layer := range layers {
		n, err := layer.Size()
		if err != nil {
			b.Fatal(err)
		}
		size += n
	}
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	dir := openDir(b)
	var one, all time.Duration
	for round, count := range []int{1, herd, 1, herd} { // the first two warm the caches
		s, err := image.Open(image.Options{
			Dir: filepath.Join(dir, fmt.Sprint(round)), Unpacker: []string{shimPath, "unpack"}, Stored: driver.IDRange{Host: 1 << 30, Size: 1 << 16},
		})
		if err != nil {
			b.Fatal(err)
		}
		bytes.Store(0)
		began := time.Now()
		var tasks sync.WaitGroup
		for range count {
			tasks.Go(func() {
				if _, err := s.Pull(b.Context(), image.Request{Ref: ref}, func(image.Progress) {}); err != nil {
					b.Error(err)
				}
			})
		}
		tasks.Wait()
		one, all = all, time.Since(began)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	tell(b, "\npull-herd: %d tasks of one uncached image of %.1f MB\n  %.3f × the image's bytes crossed the wire; the last was ready after %.2f × the time of a single one\n",
		herd, float64(size)/1e6, float64(bytes.Load())/float64(size), float64(all)/float64(one))
	b.ReportMetric(float64(bytes.Load())/float64(size), "herd-bytes-ratio")
}

// countingProxy stands before a registry and counts the bytes of its answers.
func countingProxy(b *testing.B, host string, count *atomic.Int64) http.Handler {
	b.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, counter{count}), r.Body}
		return nil
	}
	return proxy
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
