//go:build root

package image

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

// droplet is a gzipped tar with one file.
func droplet(tb testing.TB, content string) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(drivertest.Tar(tb, drivertest.Dir("./app", 0o755), drivertest.File("./app/file", 0o644, content))); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// blobstore serves one droplet with an ETag, and counts.
type blobstore struct {
	url    string
	body   atomic.Pointer[[]byte]
	bodies atomic.Int32
	asked  atomic.Int32
}

func newBlobstore(t *testing.T, raw []byte) *blobstore {
	t.Helper()
	b := &blobstore{}
	b.body.Store(&raw)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		raw := *b.body.Load()
		tag := fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(raw)))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		b.bodies.Add(1)
		_, _ = w.Write(raw)
	}))
	t.Cleanup(server.Close)
	b.url = server.URL + "/droplets/1?sig="
	return b
}

func TestFetch(t *testing.T) {
	raw := droplet(t, "one")
	store := newBlobstore(t, raw)
	s := real(t, nil)
	vcap := uint32(driver.VcapID)
	archive := Archive{URL: store.url + "a", Checksum: fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), Prefix: "/home/vcap", UID: &vcap, GID: &vcap}
	layer, err := s.Fetch(t.Context(), archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	for file, owner := range map[string]uint32{"": 0, "home": 0, "home/vcap": 2000, "home/vcap/app": 2000, "home/vcap/app/file": 2000} {
		var stat unix.Stat_t
		if err := unix.Lstat(filepath.Join(layer.Dir, file), &stat); err != nil || stat.Uid != 1e9+owner || stat.Gid != 1e9+owner {
			t.Errorf("/%s belongs to %d:%d, %v", file, stat.Uid, stat.Gid, err)
		}
	}
	archive.URL = store.url + "another-signature"
	store.asked.Store(0)
	again, err := s.Fetch(t.Context(), archive, nil)
	if err != nil || again != layer || store.asked.Load() != 0 {
		t.Errorf("a droplet that is here: %+v, %d requests, %v", again, store.asked.Load(), err)
	}
	archive.Prefix = "/srv"
	if other, err := s.Fetch(t.Context(), archive, nil); err != nil || other == layer {
		t.Errorf("elsewhere: %+v, %v", other, err)
	}
}

func TestFetch_checksums(t *testing.T) {
	raw := droplet(t, "one")
	store := newBlobstore(t, raw)
	s := real(t, nil)
	for _, good := range []string{
		fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), fmt.Sprintf("sha1:%x", sha1.Sum(raw)), fmt.Sprintf("md5:%X", md5.Sum(raw)),
	} {
		if _, err := s.Fetch(t.Context(), Archive{URL: store.url, Checksum: good}, nil); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	fresh := real(t, nil)
	for kind, digits := range map[string]int{"sha256": 64, "sha1": 40, "md5": 32} {
		_, err := fresh.Fetch(t.Context(), Archive{URL: store.url + "secret", Checksum: kind + ":" + strings.Repeat("a", digits)}, nil)
		if !errors.Is(err, ErrChecksum) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", kind, err)
		}
	}
	nothingLeft(t, fresh)
}

func TestFetch_revalidates(t *testing.T) {
	store := newBlobstore(t, droplet(t, "one"))
	s := real(t, nil)
	archive := Archive{URL: store.url, Prefix: "/home/vcap"}
	first, err := s.Fetch(t.Context(), archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	same, err := s.Fetch(t.Context(), archive, nil)
	if err != nil || same != first || store.bodies.Load() != 1 || store.asked.Load() != 2 {
		t.Errorf("%d bodies in %d requests, %v", store.bodies.Load(), store.asked.Load(), err)
	}
	next := droplet(t, "two")
	store.body.Store(&next)
	changed, err := s.Fetch(t.Context(), archive, nil)
	if err != nil || changed == first {
		t.Errorf("a changed archive was not fetched: %v", err)
	}
	content, err := os.ReadFile(filepath.Join(changed.Dir, "home/vcap/app/file"))
	if string(content) != "two" {
		t.Errorf("got %q, %v", content, err)
	}
}

func TestFetch_files(t *testing.T) {
	path := filepath.Join(t.TempDir(), "droplet.tgz")
	if err := os.WriteFile(path, droplet(t, "one"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := real(t, nil)
	first, err := s.Fetch(t.Context(), Archive{URL: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := s.Fetch(t.Context(), Archive{URL: path}, nil); err != nil || same != first {
		t.Errorf("%+v, %v", same, err)
	}
	if err := os.WriteFile(path, droplet(t, "second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if next, err := s.Fetch(t.Context(), Archive{URL: path}, nil); err != nil || next == first {
		t.Errorf("a changed file was not read: %v", err)
	}
}

func TestFetch_hostile(t *testing.T) {
	s := real(t, nil)
	for name, raw := range map[string][]byte{
		"climbs out": drivertest.Tar(t, drivertest.File("../evil", 0o644, "x")),
		"is damaged": droplet(t, "one")[:40],
		"is HTML":    []byte("<html>" + strings.Repeat("sorry ", 500)),
	} {
		if _, err := s.Fetch(t.Context(), Archive{URL: newBlobstore(t, raw).url}, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	nothingLeft(t, s)
}
