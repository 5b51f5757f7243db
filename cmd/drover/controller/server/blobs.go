package server

import (
	"crypto/md5" // the integrity header of uploads is defined with it; content is named by SHA-256
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"time"
)

// Directories of content.
const (
	packages = "packages"
	droplets = "droplets"
	caches   = "caches"
	uploads  = "uploads"
)

// blob is content that was received but has no name yet.
type blob struct {
	temporary string
	sha256    string
	md5       string
}

// receive writes content to a temporary file, and to disk for good.
func (s *Server) receive(content io.Reader) (blob, error) {
	temporary := path.Join(uploads, rand.Text())
	file, err := s.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return blob{}, fmt.Errorf("receive content: %w", err)
	}
	sum, check := sha256.New(), md5.New()
	_, err = io.Copy(io.MultiWriter(file, sum, check), content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return blob{}, errors.Join(fmt.Errorf("receive content: %w", err), s.root.Remove(temporary))
	}
	return blob{
		temporary: temporary,
		sha256:    hex.EncodeToString(sum.Sum(nil)),
		md5:       base64.StdEncoding.EncodeToString(check.Sum(nil)),
	}, nil
}

// keep gives received content its name.
func (s *Server) keep(b blob, name string) error {
	if err := s.root.Rename(b.temporary, name); err != nil {
		return fmt.Errorf("keep content: %w", err)
	}
	return nil
}

// serve answers with a file's content.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, name string) error {
	file, err := s.root.Open(name)
	if err != nil {
		return fmt.Errorf("open content: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open content: %w", err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), file)
	return nil
}

func (s *Server) getPackage(w http.ResponseWriter, r *http.Request) error {
	return s.serve(w, r, path.Join(packages, r.PathValue("guid")))
}

func (s *Server) getDroplet(w http.ResponseWriter, r *http.Request) error {
	return s.serve(w, r, path.Join(droplets, r.PathValue("checksum")))
}

func (s *Server) getCache(w http.ResponseWriter, r *http.Request) error {
	return s.serve(w, r, cacheName(r))
}

// cacheName is where the build artifacts cache of one app on one stack is; the dot keeps the two apart.
func cacheName(r *http.Request) string {
	return path.Join(caches, r.PathValue("stack")+"."+r.PathValue("guid"))
}

// checksum is the answer to requests that store or describe content.
type checksum struct {
	SHA256 string `json:"sha256"`
}

func (s *Server) putPackage(w http.ResponseWriter, r *http.Request) error {
	received, err := s.receive(http.MaxBytesReader(w, r.Body, maxBits))
	if err != nil {
		return err
	}
	if err := s.keep(received, path.Join(packages, r.PathValue("guid"))); err != nil {
		return err
	}
	return answerJSON(w, http.StatusCreated, checksum{SHA256: received.sha256})
}

func (s *Server) describeCache(w http.ResponseWriter, r *http.Request) error {
	file, err := s.root.Open(cacheName(r))
	if err != nil {
		return fmt.Errorf("open cache: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("read cache: %w", err)
	}
	return answerJSON(w, http.StatusOK, checksum{SHA256: hex.EncodeToString(sum.Sum(nil))})
}

func (s *Server) uploadCache(w http.ResponseWriter, r *http.Request) error {
	received, err := s.receivePart(w, r)
	if err != nil {
		return err
	}
	if err := s.keep(received, cacheName(r)); err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, struct{}{})
}

// uploadDroplet accepts a droplet and files it in the background, as Cloud Controller's workers do.
func (s *Server) uploadDroplet(w http.ResponseWriter, r *http.Request) error {
	guid := r.PathValue("guid")
	if _, err := read[Build](s, kindBuilds, guid); err != nil {
		return err
	}
	received, err := s.receivePart(w, r)
	if err != nil {
		return err
	}
	job := s.jobs.start(func() error {
		if err := s.keep(received, path.Join(droplets, received.sha256)); err != nil {
			return err
		}
		return change(s, kindBuilds, guid, func(b *Build) error {
			b.DropletSHA256 = received.sha256
			return nil
		})
	}, s.log)
	return answerJob(w, http.StatusCreated, job, statusQueued)
}

// receivePart reads the multipart field "file" and checks it against Content-MD5.
func (s *Server) receivePart(w http.ResponseWriter, r *http.Request) (blob, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBits)
	parts, err := r.MultipartReader()
	if err != nil {
		return blob{}, refuse("upload is not multipart: %v", err)
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return blob{}, refuse("upload has no part named file")
		}
		if err != nil {
			return blob{}, refuse("upload is cut short: %v", err)
		}
		if part.FormName() != "file" {
			continue
		}
		received, err := s.receive(part)
		if err != nil {
			return blob{}, err
		}
		if want := r.Header.Get("Content-MD5"); want != "" && want != received.md5 {
			return blob{}, errors.Join(refuse("content md5 did not match"), s.root.Remove(received.temporary))
		}
		return received, nil
	}
}

func answerJSON(w http.ResponseWriter, status int, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that went away cannot be told
	return nil
}

// now is when a record changed; JSON of it is read by people too.
func now() time.Time {
	return time.Now().UTC()
}
