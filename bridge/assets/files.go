// Package assets moves the large files of the platform: those that containers need before they run, and those that
// staging leaves behind.
//
// Files serves a directory, such as one of lifecycle bundles, under /v1/static/. Whoever can reach it can read it, so
// the directory must hold nothing secret; nothing outside of it can be named, not by dots and not by links.
//
// Uploads takes a droplet or a buildpack cache as the raw body of a request and hands it on to Cloud Controller as the
// form that Cloud Controller reads, without keeping it: neither memory nor disk grow with its size. The URL that it
// is handed on to comes with the request and can hold credentials, so callers must be authenticated (see bridge/mtls)
// and no answer or log line repeats it.
package assets

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

const filePrefix = "/v1/static/"

// FileServer serves the regular files below a directory. Make it with Files.
type FileServer struct {
	root *os.Root

	mu   sync.Mutex
	sums map[string]sum
}

// sum is the digest of a file as it was at a time.
type sum struct {
	size     int64
	modified time.Time
	etag     string
}

// Files opens a directory. Close it when its last request has ended.
func Files(dir string) (*FileServer, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of static files: %w", err)
	}
	return &FileServer{root: root, sums: map[string]sum{}}, nil
}

// Close gives the directory up.
func (s *FileServer) Close() error { return s.root.Close() }

// ServeHTTP answers GET and HEAD, whole or in ranges. The ETag is the quoted SHA-256 of the content. A directory is
// 401 and a path with dots is 400, as Diego's file server has it.
func (s *FileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, found := strings.CutPrefix(r.URL.Path, filePrefix)
	if !found {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		http.Error(w, "invalid URL path", http.StatusBadRequest)
		return
	}
	file, info, err := s.open(path.Clean("/" + name)[1:])
	switch {
	case errors.Is(err, errDirectory):
		http.Error(w, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
		return
	case err != nil:
		http.NotFound(w, r)
		return
	}
	defer func() { _ = file.Close() }()
	etag, err := s.etag(file, info)
	if err != nil {
		http.Error(w, "the file cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", etag)
	http.ServeContent(w, r, info.Name(), info.ModTime(), file)
}

var (
	errDirectory = errors.New("is a directory")
	errSpecial   = errors.New("is no regular file")
)

// open looks before it opens, because to open a fifo is to wait for its writer.
func (s *FileServer) open(name string) (*os.File, fs.FileInfo, error) {
	if name == "" {
		return nil, nil, errDirectory
	}
	info, err := s.root.Stat(name)
	switch {
	case err != nil:
		return nil, nil, err
	case info.IsDir():
		return nil, nil, errDirectory
	case !info.Mode().IsRegular():
		return nil, nil, errSpecial
	}
	file, err := s.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err = file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// etag reads a file once for each time that it was changed.
func (s *FileServer) etag(file *os.File, info fs.FileInfo) (string, error) {
	s.mu.Lock()
	known, found := s.sums[file.Name()]
	s.mu.Unlock()
	if found && known.size == info.Size() && known.modified.Equal(info.ModTime()) {
		return known.etag, nil
	}
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return "", err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	etag := `"` + hex.EncodeToString(digest.Sum(nil)) + `"`
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[file.Name()] = sum{size: info.Size(), modified: info.ModTime(), etag: etag}
	return etag, nil
}
