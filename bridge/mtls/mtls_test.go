package mtls

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority("test authority", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func identity(t *testing.T, a *Authority, name string, hosts ...string) *Identity {
	t.Helper()
	files, err := a.Issue(t.TempDir(), name, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	id, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// get calls url as who, or without a certificate when anonymous.
func get(t *testing.T, url string, who *Identity, anonymous bool) error {
	t.Helper()
	config := who.Client()
	if anonymous {
		config.Certificates = nil
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func TestServer(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = identity(t, ours, "bbs", "127.0.0.1").Server()
	server.StartTLS()
	defer server.Close()
	client := identity(t, ours, "cc", "cc.internal")

	if err := get(t, server.URL, client, false); err != nil {
		t.Errorf("a client of our authority was turned away: %v", err)
	}
	if err := get(t, server.URL, client, true); err == nil {
		t.Error("a client without a certificate was let in")
	}
	stranger := identity(t, theirs, "cc", "cc.internal")
	stranger.pool = client.pool
	if err := get(t, server.URL, stranger, false); err == nil {
		t.Error("a client of another authority was let in")
	}
	if err := get(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), client, false); err == nil {
		t.Error("a server was believed under a name that its certificate does not hold")
	}
}

func TestLoad_namesEveryBadFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Files{CA: empty, Cert: filepath.Join(dir, "no.crt"), Key: filepath.Join(dir, "no.key")}.Load()
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"empty.pem", "no.crt", "no.key"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
}

func TestIssue_keepsKeysPrivate(t *testing.T) {
	files, err := authority(t).Issue(t.TempDir(), "bbs", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, want 0600", info.Mode().Perm())
	}
}
