package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/registry"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestServer_keepsImagesAcrossRestarts(t *testing.T) {
	config := registry.Config{Listen: "127.0.0.1:0", Dir: t.TempDir()}
	image := randomImage(t)

	address, stop := start(t, config)
	reference := parse(t, address+"/apps/web:1")
	if err := remote.Write(reference, image); err != nil {
		t.Fatalf("push: %v", err)
	}
	stop()

	address, _ = start(t, config)
	pulled, err := remote.Image(parse(t, address+"/apps/web:1"))
	if err != nil {
		t.Fatalf("pull: %v", err)
	}
	sameDigest(t, pulled, image)
}

func TestServer_mutualTLS(t *testing.T) {
	files, client := certificates(t)
	address, _ := start(t, registry.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), TLS: files})
	image := randomImage(t)
	reference := parse(t, address+"/apps/web:1")

	known := remote.WithTransport(&http.Transport{TLSClientConfig: client})
	if err := remote.Write(reference, image, known); err != nil {
		t.Fatalf("push with a client certificate: %v", err)
	}
	pulled, err := remote.Image(reference, known)
	if err != nil {
		t.Fatalf("pull with a client certificate: %v", err)
	}
	sameDigest(t, pulled, image)

	nobody := remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: client.RootCAs}})
	if _, err := remote.Image(reference, nobody); err == nil {
		t.Error("a client without a certificate could pull")
	}
}

func TestServer_logsOnlyItsOwnFailures(t *testing.T) {
	dir := t.TempDir()
	var logged bytes.Buffer
	server, err := Open(t.Context(), registry.Config{Listen: "127.0.0.1:0", Dir: dir}, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	if _, err := remote.Image(parse(t, server.Addr()+"/no/such:image")); err == nil {
		t.Error("an unknown image was found")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if logged.Len() != 0 {
		t.Errorf("a client's mistake was logged: %s", logged.String())
	}
}

func TestOpen_namesWhatIsWrong(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	if _, err := Open(t.Context(), registry.Config{Listen: "nowhere", Dir: "/x"}, quiet); err == nil {
		t.Error("a bad address was taken")
	}
	missing := registry.TLSFiles{Cert: "/no/such/cert", Key: "/no/such/key"}
	if _, err := Open(t.Context(), registry.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), TLS: missing}, quiet); err == nil {
		t.Error("a missing certificate was taken")
	}
}

// start serves a registry until the test ends or stop is called.
func start(t *testing.T, config registry.Config) (address string, stop func()) {
	t.Helper()
	server, err := Open(t.Context(), config, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return server.Addr(), stop
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(1024, 2)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func parse(t *testing.T, reference string) name.Reference {
	t.Helper()
	parsed, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func sameDigest(t *testing.T, got, want v1.Image) {
	t.Helper()
	gotDigest, err := got.Digest()
	if err != nil {
		t.Fatal(err)
	}
	wantDigest, err := want.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if gotDigest != wantDigest {
		t.Errorf("pulled %s, pushed %s", gotDigest, wantDigest)
	}
}

// certificates writes a self-signed certificate that is its own authority, for both sides.
func certificates(t *testing.T) (registry.TLSFiles, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	dir := t.TempDir()
	files := registry.TLSFiles{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "cert")}
	for path, content := range map[string][]byte{files.Cert: certPEM, files.Key: keyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return files, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
}
