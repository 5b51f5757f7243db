package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"

	"drover/driver"
)

// open makes a store that fails fast.
func open(tb testing.TB, change func(*Options)) *Store {
	tb.Helper()
	options := Options{Dir: filepath.Join(tb.TempDir(), "images"), Unpacker: []string{"/nonexistent"}, Stored: driver.IDRange{Host: 1e9, Size: 65536}}
	if change != nil {
		change(&options)
	}
	s, err := Open(options)
	if err != nil {
		tb.Fatal(err)
	}
	s.tune = tuning{idle: 500 * time.Millisecond, answer: time.Second, patience: 500 * time.Millisecond, backoff: time.Millisecond, watch: time.Millisecond}
	s.transport.backoff = time.Millisecond
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestParse(t *testing.T) {
	t.Parallel()
	s := open(t, func(o *Options) { o.Insecure = []string{"registry.example.com:5000"} })
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, row := range []struct{ ref, want, scheme string }{
		{"busybox", "index.docker.io/library/busybox:latest", "https"},
		{"team/app:1", "index.docker.io/team/app:1", "https"},
		{"registry.example.com/team/app@" + digest, "registry.example.com/team/app@" + digest, "https"},
		{"registry.example.com:5000/app:2", "registry.example.com:5000/app:2", "http"},
		{"127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "http"},
	} {
		got, err := s.parse(row.ref)
		if err != nil || got.Name() != row.want || got.Context().Scheme() != row.scheme {
			t.Errorf("%s: got %v, %v", row.ref, got, err)
		}
	}
	for _, ref := range []string{"", "http://a/b", "UPPER/case", "a b", "a/b:", "a/b@sha256:12", strings.Repeat("a", 2000), "a/b\n"} {
		if _, err := s.parse(ref); !errors.Is(err, ErrBadReference) || len(err.Error()) > 1500 {
			t.Errorf("%.20q: got %v", ref, err)
		}
	}
}

func TestParseManifest(t *testing.T) {
	t.Parallel()
	layer := `{"digest":"sha256:` + strings.Repeat("a", 64) + `","size":1}`
	for name, raw := range map[string]string{
		"both an image and an index": `{"config":` + layer + `,"layers":[` + layer + `],"manifests":[` + layer + `]}`,
		"neither":                    `{"fsLayers":[]}`,
		"no JSON":                    `<html>`,
		"too many layers":            `{"config":` + layer + `,"layers":[` + strings.TrimSuffix(strings.Repeat(layer+",", 501), ",") + `]}`,
		"a digest that is none":      `{"config":{"digest":"sha256:zz"},"layers":[` + layer + `]}`,
	} {
		if _, err := parseManifest([]byte(raw)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	raw := `{"manifests":[{"digest":"sha256:` + strings.Repeat("1", 64) + `","platform":{"os":"unknown","architecture":"unknown"}},` +
		`{"digest":"sha256:` + strings.Repeat("2", 64) + `","platform":{"os":"linux","architecture":"` + runtime.GOARCH + `"}}]}`
	index, err := parseManifest([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	got, err := platform{}.choose(index.Manifests)
	if err != nil || !strings.HasPrefix(got.Hex, "22") {
		t.Errorf("chose %v, %v", got, err)
	}
	if _, err := (platform{}).choose(index.Manifests[:1]); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestAuthenticator_staysWithItsRegistry(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for _, row := range []struct {
		ref, server string
		sent        bool
	}{
		{"registry.example.com/a", "", true},
		{"registry.example.com/a", "https://registry.example.com/v2/", true},
		{"registry.example.com/a", "other.example.com", false},
		{"a/b", "https://index.docker.io/v1/", true},
		{"a/b", "docker.io", true},
		{"registry.example.com/a", "docker.io", false},
	} {
		ref, err := s.parse(row.ref)
		if err != nil {
			t.Fatal(err)
		}
		got := authenticator(ref, &Auth{Username: "u", Password: "p", ServerAddress: row.server})
		if sent := got != authn.Anonymous; sent != row.sent {
			t.Errorf("%s with credentials for %q: sent %v", row.ref, row.server, sent)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://user:secret@example.com/a/b?sig=secret": "https://example.com/a/b",
		"/var/droplet.tgz":              "/var/droplet.tgz",
		"user:secret@example.com?sig=x": "example.com",
		"https://user:sec%zz@host/?x":   "host/",
	} {
		if got := Redact(raw); got != want {
			t.Errorf("%q became %q", raw, got)
		}
	}
}

func TestExplain_keepsSecrets(t *testing.T) {
	t.Parallel()
	inner := fmt.Errorf("dial: %w", io.ErrUnexpectedEOF)
	err := explain("archive x", &url.Error{Op: "Get", URL: "https://u:secret@example.com/?sig=secret", Err: inner})
	if strings.Contains(err.Error(), "secret") || !errors.Is(err, ErrUnreachable) || !IsTemporary(err) {
		t.Errorf("got %v", err)
	}
	err = explain("archive x", &url.Error{Op: "Get", URL: "https://example.com/?sig=secret", Err: fmt.Errorf("%w: no", ErrRefused)})
	if strings.Contains(err.Error(), "secret") || !errors.Is(err, ErrRefused) || IsTemporary(err) {
		t.Errorf("got %v", err)
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	g := &guard{plain: []string{"listed.example.com:5000"}}
	for host, want := range map[string]bool{
		"127.0.0.1:80": true, "localhost": true, "[::1]:5000": true, "listed.example.com:5000": true,
		"10.0.0.1:5000": false, "listed.example.com": false, "localhost.example.com": false,
	} {
		if got := g.plainAllowed(host); got != want {
			t.Errorf("plain http to %s: %v", host, got)
		}
	}
	for address, refused := range map[string]bool{
		"169.254.169.254:80": true, "[fe80::1]:80": true, "[::ffff:169.254.169.254]:80": true, "[fd00:ec2::254]:80": true, "10.0.0.1:80": false,
	} {
		if err := refuseLinkLocal("tcp", address, nil); errors.Is(err, ErrRefused) != refused {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

func TestPull_refusesPlainHTTP(t *testing.T) {
	t.Parallel()
	_, err := open(t, nil).Pull(t.Context(), Request{Ref: "10.255.255.1:1/a/b:1"}, nil)
	if err == nil || strings.Contains(err.Error(), "EOF") {
		t.Errorf("got %v", err)
	}
}

func TestPull_unreachable(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(server.URL, "http://")
	server.Close()
	_, err := open(t, nil).Pull(t.Context(), Request{Ref: host + "/a/b:1"}, nil)
	if !errors.Is(err, ErrUnreachable) || !IsTemporary(err) || !strings.Contains(err.Error(), host+"/a/b:1") {
		t.Errorf("got %v", err)
	}
}

// registry answers every manifest with one body.
func registry(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v2/", answer)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestPull_hostileManifests(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		want   error
	}{
		{"larger than allowed", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(endless{}, maxManifest+1))
		}, ErrInvalid},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, ErrInvalid},
		{"empty", status(200), ErrInvalid},
		{"an index of itself", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"manifests":[{"digest":"sha256:`+strings.Repeat("a", 64)+`"}]}`)
		}, nil},
		{"forbidden", status(403), ErrUnauthorized},
		{"unauthorized", status(401), ErrUnauthorized},
		{"missing", status(404), ErrNotFound},
		{"overloaded", status(429), ErrUnreachable},
		{"broken", status(500), ErrUnreachable},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ErrUnreachable},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ref := registry(t, row.answer) + "/team/app:1"
			_, err := open(t, nil).Pull(t.Context(), Request{Ref: ref}, nil)
			if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), ref) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestPull_credentialsStayHome(t *testing.T) {
	t.Parallel()
	var leaked atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		w.WriteHeader(404)
	}))
	t.Cleanup(thief.Close)
	elsewhere := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)
	for name, answer := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+"/v2/x", http.StatusTemporaryRedirect)
		},
		"metadata realm": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://169.254.169.254/token",service="x"`)
			w.WriteHeader(401)
		},
		"metadata redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /v2/{$}", func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(name, "metadata realm") {
					answer(w, r)
					return
				}
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(401)
			})
			mux.HandleFunc("GET /v2/", answer)
			server := httptest.NewServer(mux)
			t.Cleanup(server.Close)
			_, err := open(t, nil).Pull(t.Context(), Request{Ref: strings.TrimPrefix(server.URL, "http://") + "/a/b:1", Auth: &Auth{Username: "u", Password: "secret"}}, nil)
			if err == nil || leaked.Load() || strings.Contains(err.Error(), "secret") {
				t.Errorf("leaked %v, %v", leaked.Load(), err)
			}
		})
	}
}

func TestPull_keepsSignatures(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }))
	t.Cleanup(refusing.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, place := range map[string]string{"refused": refusing.URL, "unreachable": gone.URL} {
		ref := registry(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, place+"/blob?X-Signature=secret", http.StatusTemporaryRedirect)
		}) + "/team/app:1"
		if _, err := open(t, nil).Pull(t.Context(), Request{Ref: ref}, nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFetch_refuses(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for name, archive := range map[string]Archive{
		"a relative path":       {URL: "droplet.tgz"},
		"another scheme":        {URL: "file:///etc/passwd"},
		"a URL without a host":  {URL: "http:///x"},
		"an unknown checksum":   {URL: "/x", Checksum: "crc:1234"},
		"half a checksum":       {URL: "/x", Checksum: "sha256:1234"},
		"a checksum of letters": {URL: "/x", Checksum: "md5:" + strings.Repeat("x", 32)},
		"a relative prefix":     {URL: "/x", Prefix: "home"},
	} {
		if _, err := s.Fetch(t.Context(), archive, nil); !errors.Is(err, ErrBadReference) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.Fetch(t.Context(), Archive{URL: filepath.Join(t.TempDir(), "missing")}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Fetch(t.Context(), Archive{URL: t.TempDir()}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestFetch_answers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{401: ErrUnauthorized, 404: ErrNotFound, 410: ErrNotFound, 503: ErrUnreachable, 204: ErrInvalid} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		secret := strings.Replace(server.URL, "http://", "http://user:secret@", 1) + "/droplet?sig=secret"
		_, err := open(t, nil).Fetch(t.Context(), Archive{URL: secret}, nil)
		if !errors.Is(err, want) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "/droplet") {
			t.Errorf("%d: got %v", status, err)
		}
		server.Close()
		_, err = open(t, nil).Fetch(t.Context(), Archive{URL: secret}, nil)
		if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("unreachable: got %v", err)
		}
	}
}

func TestFlights(t *testing.T) {
	t.Parallel()
	var f flights
	var runs atomic.Int32
	gate := make(chan struct{})
	work := func(ctx context.Context, _ *meter) error {
		runs.Add(1)
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	impatient, leave := context.WithCancel(t.Context())
	first, second := f.join(impatient, "k", "", work), f.join(t.Context(), "k", "", work)
	leave()
	if err := f.wait(impatient, "k", first); !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left got %v", err)
	}
	close(gate)
	if err := f.wait(t.Context(), "k", second); err != nil || runs.Load() != 1 {
		t.Errorf("the one who stayed got %v after %d runs", err, runs.Load())
	}
	gate = make(chan struct{})
	alone, leave := context.WithCancel(t.Context())
	last := f.join(alone, "k", "", work)
	leave()
	if err := f.wait(alone, "k", last); !errors.Is(err, context.Canceled) || !errors.Is(last.err, context.Canceled) {
		t.Errorf("the last who left got %v, the work %v", err, last.err)
	}
}

func TestOpen_sweepsTheDead(t *testing.T) {
	t.Parallel()
	living := open(t, nil)
	dead := filepath.Join(living.options.Dir, "staging", "p-dead", "t1", "tree")
	if err := os.MkdirAll(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	second, err := Open(living.options)
	if err != nil {
		t.Fatal(err)
	}
	if isDir(dead) || !isDir(living.staging) || !isDir(second.staging) {
		t.Errorf("dead %v, living %v, new %v", isDir(dead), isDir(living.staging), isDir(second.staging))
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpen_refuses(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, options := range map[string]Options{
		"a relative directory":  {Dir: "images", Unpacker: []string{"x"}},
		"no unpacker":           {Dir: t.TempDir()},
		"a missing authority":   {Dir: t.TempDir(), Unpacker: []string{"x"}, TLS: driver.TLSFiles{CA: missing}},
		"a missing certificate": {Dir: t.TempDir(), Unpacker: []string{"x"}, TLS: driver.TLSFiles{Cert: missing, Key: missing}},
	} {
		if _, err := Open(options); err == nil {
			t.Errorf("took %s", name)
		}
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	layers := []driver.Layer{{Dir: "/a", Stored: driver.IDRange{Host: 1, Size: 2}}}
	if err := s.Lease("alloc-1_web.0", layers); err != nil {
		t.Fatal(err)
	}
	usage, err := s.Usage()
	if err != nil || usage.Leases != 1 || usage.TotalBytes == 0 {
		t.Errorf("got %+v, %v", usage, err)
	}
	for range 2 {
		if err := s.Release("alloc-1_web.0"); err != nil {
			t.Error(err)
		}
	}
	if usage, err = s.Usage(); err != nil || usage.Leases != 0 {
		t.Errorf("got %+v, %v", usage, err)
	}
	for _, owner := range []string{"", "../x", "a/b"} {
		if s.Lease(owner, layers) == nil || s.Release(owner) == nil {
			t.Errorf("took the owner %q", owner)
		}
	}
}

func TestReadBlob_verifies(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	digest := digestOf("x")
	hash := mustHash(t, "sha256:"+digest)
	if err := s.writeFile(s.blobPath(hash), []byte("something else"), true); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.readBlob(hash); ok {
		t.Error("returned what does not match its name")
	}
	if diff := cmp.Diff(64, len(digest)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"busybox", "a/b:c", "host:5000/a@sha256:aa", "docker://x", "[::1]:80/a", "a//b", ":", "@", "a:b:c"} {
		f.Add(seed)
	}
	s := &Store{options: Options{Insecure: []string{"host:5000"}}}
	f.Fuzz(func(t *testing.T, ref string) {
		parsed, err := s.parse(ref)
		if err != nil {
			if !errors.Is(err, ErrBadReference) {
				t.Errorf("%q: %v", ref, err)
			}
			return
		}
		again, err := s.parse(parsed.Name())
		if err != nil || again.Name() != parsed.Name() {
			t.Errorf("%q: %v, %v", ref, again, err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:aa","size":1},"layers":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found, err := parseManifest(raw)
		if err == nil && len(found.Manifests) == 0 && found.Config == nil {
			t.Error("an image without a configuration")
		}
	})
}
