package trust_test

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"drover/stager/trust"
)

func TestPool(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	dir := t.TempDir()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, content := range map[string][]byte{"platform.crt": text, "README": []byte("no certificate")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"dangling": "missing", "outside": "/etc/hostname"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		promise, dir string
		trusts       bool
	}{
		{"the platform's certificates are trusted", dir, true},
		{"nobody else's are", filepath.Join(dir, "none"), false},
	} {
		pool, err := trust.Pool(row.dir)
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
		if err := get(t, client, server.URL); (err == nil) != row.trusts {
			t.Errorf("%s: got %v", row.promise, err)
		}
	}
}

func TestTransport(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for _, verify := range []bool{true, false} {
		transport, err := trust.Transport(verify)
		if err != nil {
			t.Fatal(err)
		}
		if err := get(t, &http.Client{Transport: transport}, server.URL); (err != nil) != verify {
			t.Errorf("verify %v: got %v", verify, err)
		}
	}
}

func get(t *testing.T, client *http.Client, url string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
