package assets

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// tree returns a server over a directory with a file, a directory, and what must not be served.
func tree(t *testing.T) (server *FileServer, dir string) {
	t.Helper()
	outside := t.TempDir()
	dir = t.TempDir()
	for path, content := range map[string]string{
		filepath.Join(dir, "bundle.tgz"):            "a bundle",
		filepath.Join(dir, "lifecycles", "one.tgz"): "one",
		filepath.Join(outside, "secret"):            "a secret",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server, dir
}

func fetch(t *testing.T, server http.Handler, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	request.Header = header
	recorder := httptest.NewRecorder()
	server.ServeHTTP(recorder, request)
	return recorder
}

func TestFiles(t *testing.T) {
	server, _ := tree(t)
	for _, c := range []struct {
		promise, method, path string
		want                  int
		body                  string
	}{
		{"serves a file", "GET", "/v1/static/bundle.tgz", 200, "a bundle"},
		{"serves a file in a directory", "GET", "/v1/static/lifecycles/one.tgz", 200, "one"},
		{"serves no body to HEAD", "HEAD", "/v1/static/bundle.tgz", 200, ""},
		{"lists no directory", "GET", "/v1/static/lifecycles", 401, "Unauthorized\n"},
		{"lists not the top", "GET", "/v1/static/", 401, "Unauthorized\n"},
		{"refuses dots", "GET", "/v1/static/../etc/passwd", 400, "invalid URL path\n"},
		{"refuses dots in disguise", "GET", "/v1/static/%2e%2e/etc/passwd", 400, "invalid URL path\n"},
		{"refuses dots behind an encoded slash", "GET", "/v1/static/x%2f..%2f..%2fetc/passwd", 400, "invalid URL path\n"},
		{"follows no link to the outside", "GET", "/v1/static/link", 404, "404 page not found\n"},
		{"waits for no fifo", "GET", "/v1/static/fifo", 404, "404 page not found\n"},
		{"knows no absolute path", "GET", "/v1/static//etc/passwd", 404, "404 page not found\n"},
		{"knows no NUL", "GET", "/v1/static/bundle.tgz%00", 404, "404 page not found\n"},
		{"does not know what is missing", "GET", "/v1/static/missing", 404, "404 page not found\n"},
		{"does not know another path", "GET", "/v2/static/bundle.tgz", 404, "404 page not found\n"},
		{"takes nothing", "PUT", "/v1/static/bundle.tgz", 405, "Method Not Allowed\n"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			got := fetch(t, server, c.method, c.path, nil)
			if got.Code != c.want || got.Body.String() != c.body {
				t.Errorf("%d %q, want %d %q", got.Code, got.Body, c.want, c.body)
			}
		})
	}
}

func TestFiles_etag(t *testing.T) {
	server, dir := tree(t)
	tag := func(content string) string { return fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(content))) }

	first := fetch(t, server, "GET", "/v1/static/bundle.tgz", nil)
	if got := first.Header().Get("ETag"); got != tag("a bundle") {
		t.Fatalf("ETag %s, want %s", got, tag("a bundle"))
	}
	again := fetch(t, server, "GET", "/v1/static/bundle.tgz", http.Header{"If-None-Match": {tag("a bundle")}})
	if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("asked again: %d %q, want 304 and nothing", again.Code, again.Body)
	}
	if err := os.WriteFile(filepath.Join(dir, "bundle.tgz"), []byte("another bundle"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := fetch(t, server, "GET", "/v1/static/bundle.tgz", http.Header{"If-None-Match": {tag("a bundle")}})
	if changed.Code != http.StatusOK || changed.Header().Get("ETag") != tag("another bundle") {
		t.Errorf("after a change: %d %s, want 200 %s", changed.Code, changed.Header().Get("ETag"), tag("another bundle"))
	}
	part := fetch(t, server, "GET", "/v1/static/bundle.tgz", http.Header{"Range": {"bytes=8-"}})
	if part.Code != http.StatusPartialContent || part.Body.String() != "bundle" {
		t.Errorf("a range: %d %q", part.Code, part.Body)
	}
}

func TestFiles_refusesWhatIsNoDirectory(t *testing.T) {
	if _, err := Files(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing directory was opened")
	}
}
