//go:build root

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover/driver"
	"drover/driver/drivertest"
)

// noise is text that cannot be compressed, so that bytes on the wire are bytes of the layer.
func noise(size int) string {
	raw := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(raw)
	return string(raw)
}

// cutter serves one blob and cuts each answer after some bytes.
type cutter struct {
	raw    []byte
	each   int
	ranges bool
	sent   atomic.Int64
	asked  atomic.Int32
}

func (c *cutter) serve(w http.ResponseWriter, r *http.Request) {
	c.asked.Add(1)
	from := 0
	if text, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && c.ranges {
		from, _ = strconv.Atoi(strings.TrimSuffix(text, "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(c.raw)-1, len(c.raw)))
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(c.raw)))
	w.Header().Set("Content-Length", strconv.Itoa(len(c.raw)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	end := min(len(c.raw), from+c.each)
	if !c.ranges {
		end = min(len(c.raw), c.each*int(c.asked.Load()))
	}
	n, _ := w.Write(c.raw[from:end])
	c.sent.Add(int64(n))
	if end < len(c.raw) {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// oneLayer makes an image of one big layer, and returns the layer's bytes as they are transferred.
func oneLayer(t *testing.T, size int) (v1.Image, v1.Hash, []byte) {
	t.Helper()
	image := drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("noise", 0o644, noise(size))))
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return image, digest, raw
}

func TestPull_goesOnAfterCuts(t *testing.T) {
	upstream := drivertest.Serve(t)
	image, digest, raw := oneLayer(t, 8<<20)
	drivertest.Push(t, upstream, "team/app:1", image)
	for _, row := range []struct {
		name   string
		ranges bool
		most   float64 // times the layer's size
	}{{"a registry with ranges", true, 1.0}, {"one without", false, 6}} {
		t.Run(row.name, func(t *testing.T) {
			cut := &cutter{raw: raw, each: 1 << 20, ranges: row.ranges}
			front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, digest.String()) {
					return false
				}
				cut.serve(w, r)
				return true
			})
			s := real(t, nil)
			if _, err := s.Pull(t.Context(), Request{Ref: front.host + "/team/app:1"}, nil); err != nil {
				t.Fatal(err)
			}
			if times := float64(cut.sent.Load()) / float64(len(raw)); times > row.most || cut.asked.Load() < 8 {
				t.Errorf("%.2f times the layer was sent in %d answers", times, cut.asked.Load())
			}
		})
	}
}

func TestPull_stalls(t *testing.T) {
	upstream := drivertest.Serve(t)
	image, digest, raw := oneLayer(t, 1<<20)
	drivertest.Push(t, upstream, "team/app:1", image)
	for name, always := range map[string]bool{"once": false, "always": true} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, digest.String()) || !always && asked.Load() > 0 {
					return false
				}
				asked.Add(1)
				w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
				_, _ = w.Write(raw[:100])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return true
			})
			s := real(t, nil)
			_, err := s.Pull(t.Context(), Request{Ref: front.host + "/team/app:1"}, nil)
			if !always && err != nil {
				t.Error(err)
			}
			if always && (!errors.Is(err, ErrUnreachable) || !IsTemporary(err) || !strings.Contains(err.Error(), "pull_activity_timeout")) {
				t.Errorf("got %v", err)
			}
			if always {
				nothingLeft(t, s)
			}
		})
	}
}

func TestFetch_goesOnAfterCuts(t *testing.T) {
	raw := droplet(t, noise(4<<20))
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(raw))
	for name, checksum := range map[string]string{"by checksum": sum, "by ETag": ""} {
		t.Run(name, func(t *testing.T) {
			cut := &cutter{raw: raw, each: 1 << 20, ranges: true}
			server := httptest.NewServer(http.HandlerFunc(cut.serve))
			t.Cleanup(server.Close)
			if _, err := real(t, nil).Fetch(t.Context(), Archive{URL: server.URL, Checksum: checksum}, nil); err != nil {
				t.Fatal(err)
			}
			if cut.sent.Load() != int64(len(raw)) || cut.asked.Load() < 4 {
				t.Errorf("%d of %d bytes were sent in %d answers", cut.sent.Load(), len(raw), cut.asked.Load())
			}
		})
	}
}

// What changes while it is cut must not be put together from two halves.
func TestFetch_changesBetweenCuts(t *testing.T) {
	var asked atomic.Int32
	one, two := droplet(t, noise(1<<20)), droplet(t, strings.Repeat("two", 1<<18))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			(&cutter{raw: one, each: 1 << 19}).serve(w, r)
			return
		}
		w.Header().Set("ETag", `"two"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(two))
	}))
	t.Cleanup(server.Close)
	layer, err := real(t, nil).Fetch(t.Context(), Archive{URL: server.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, layer.Dir+"/app/file"); !strings.HasPrefix(got, "twotwo") {
		t.Errorf("got %.10q", got)
	}
}

func TestPull_waitsWhenOneTooMany(t *testing.T) {
	var refused atomic.Int32
	upstream := drivertest.Serve(t)
	drivertest.Push(t, upstream, "team/app:1", sample(t))
	front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
		if refused.Add(1)%2 == 0 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	if _, err := real(t, nil).Pull(t.Context(), Request{Ref: front.host + "/team/app:1"}, nil); err != nil {
		t.Error(err)
	}
}

// One image that trickles in does not hold up another.
func TestPull_slowOnesHoldUpNobody(t *testing.T) {
	upstream := drivertest.Serve(t)
	slow, digest, raw := oneLayer(t, 1<<20)
	drivertest.Push(t, upstream, "team/slow:1", slow)
	drivertest.Push(t, upstream, "team/fast:1", sample(t))
	begun := make(chan struct{})
	front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		close(begun)
		for n := 0; r.Context().Err() == nil; n += 100 {
			_, _ = w.Write(raw[n : n+100])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		return true
	})
	s := real(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, Request{Ref: front.host + "/team/slow:1"}, nil)
		ended <- err
	}()
	<-begun
	if _, err := s.Pull(t.Context(), Request{Ref: front.host + "/team/fast:1"}, nil); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		t.Errorf("the slow one has ended: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
