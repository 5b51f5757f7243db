package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover/driver"
)

// mutual starts a server that wants a client certificate, and returns the files that a client of its needs.
func mutual(t *testing.T, handler http.Handler) (*httptest.Server, driver.TLSFiles) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cell"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := driver.TLSFiles{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for name, block := range map[string]*pem.Block{
		files.CA:   {Type: "CERTIFICATE", Bytes: server.Certificate().Raw},
		files.Cert: {Type: "CERTIFICATE", Bytes: cert},
		files.Key:  {Type: "EC PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return server, files
}

func TestFetch_mutualTLS(t *testing.T) {
	t.Parallel()
	server, files := mutual(t, http.NotFoundHandler())
	s := open(t, func(o *Options) { o.TLS = files })
	if _, err := s.Fetch(t.Context(), Archive{URL: server.URL + "/droplet"}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("with the certificate: got %v, want the server's answer", err)
	}
	s = open(t, func(o *Options) { o.TLS = driver.TLSFiles{CA: files.CA} })
	if _, err := s.Fetch(t.Context(), Archive{URL: server.URL + "/droplet"}, nil); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("without a client certificate: got %v", err)
	}
	_, err := open(t, nil).Fetch(t.Context(), Archive{URL: server.URL + "/droplet"}, nil)
	if !errors.Is(err, ErrRefused) || IsTemporary(err) || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("without the authority: got %v", err)
	}
}

func TestPull_mutualTLS(t *testing.T) {
	t.Parallel()
	server, files := mutual(t, http.NotFoundHandler())
	ref := strings.TrimPrefix(server.URL, "https://") + "/a/b:1"
	if _, err := open(t, func(o *Options) { o.TLS = files }).Pull(t.Context(), Request{Ref: ref}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("with the certificate: got %v, want the server's answer", err)
	}
	if _, err := open(t, nil).Pull(t.Context(), Request{Ref: ref}, nil); err == nil || IsTemporary(err) {
		t.Errorf("without the authority: got %v", err)
	}
}

func TestOpen_readsCertificates(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newTransport(driver.TLSFiles{CA: empty}); err == nil || !strings.Contains(err.Error(), "empty.pem") {
		t.Errorf("got %v", err)
	}
}

func TestFetch_redirectToPlain(t *testing.T) {
	t.Parallel()
	var asked atomic.Bool
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	t.Cleanup(plain.Close)
	server, files := mutual(t, http.RedirectHandler(plain.URL, http.StatusFound))
	s := open(t, func(o *Options) { o.TLS = files })
	_, err := s.Fetch(t.Context(), Archive{URL: server.URL + "/droplet"}, nil)
	if !errors.Is(err, ErrRefused) || IsTemporary(err) || asked.Load() {
		t.Errorf("got %v, asked in plain: %v", err, asked.Load())
	}
}

func TestGuard_redirectsToTheNode(t *testing.T) {
	t.Parallel()
	answers := func(*http.Request) (*http.Response, error) { return httptest.NewRecorder().Result(), nil }
	g := &guard{inner: roundTrip(answers), plain: []string{"127.0.0.1:5000"}}
	for _, test := range []struct {
		home, url string
		want      bool
	}{
		{"registry.example.com", "https://registry.example.com/v2/", true},
		{"registry.example.com", "https://blobs.example.com/b", true},
		{"registry.example.com", "http://127.0.0.1:4646/v1/agent/self", false},
		{"registry.example.com", "https://localhost:8500/v1/kv", false},
		{"registry.example.com", "http://[::1]:4646/", false},
		{"registry.example.com", "http://[::ffff:127.0.0.1]:4646/", false},
		{"registry.example.com", "http://127.0.0.1:5000/v2/", true}, // the operator lists it
		{"127.0.0.1:5001", "http://127.0.0.1:5001/v2/", true},
		{"localhost:5001", "http://127.0.0.1:5001/v2/", true},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := g.of(test.home).RoundTrip(request)
		if err == nil {
			_ = answer.Body.Close()
		}
		if (err == nil) != test.want || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s asks for %s: %v", test.home, test.url, err)
		}
	}
}

// roundTrip makes a transport of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
