package image

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// tagRecord is what a tag meant when its registry last told.
type tagRecord struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"`
}

// tagPath is where a tag's record is: apart for each platform and user, so that nobody gets by a registry's silence
// what it would not have given to him.
func (p *pull) tagPath(auth *Auth) string {
	return filepath.Join(p.store.options.Dir, "tags", digestOf(p.ref.Name(), p.platform.String(), p.who(auth))+".json")
}

// remember notes what a tag means, once all of it is here.
func (p *pull) remember(found *resolved, auth *Auth) error {
	_, pinned := p.ref.(name.Digest)
	if confirmed := found.unconfirmed == nil; pinned || !confirmed {
		return nil
	}
	raw, err := json.Marshal(tagRecord{Ref: p.ref.Name(), Digest: found.digest.String()})
	if err != nil {
		return err
	}
	path := p.tagPath(auth)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(raw) {
		touch(path)
		return nil
	}
	return p.store.writeFile(path, raw, false)
}

// recall returns what the tag meant before, when that is here whole and may be used.
func (p *pull) recall(auth *Auth) *resolved {
	if p.request.Force {
		return nil
	}
	record := readTag(p.tagPath(auth))
	digest, err := v1.NewHash(record.Digest)
	if err == nil {
		found, err := p.store.local(digest, p.platform)
		if err == nil && len(found.missing(p.store)) == 0 {
			return found
		}
	}
	return nil // what cannot be used is not known
}

// readTag returns what a record says, or nothing.
func readTag(path string) tagRecord {
	var record tagRecord
	if raw, err := os.ReadFile(path); err != nil || json.Unmarshal(raw, &record) != nil {
		return tagRecord{}
	}
	return record
}

// local describes an image whose manifest is here.
func (s *Store) local(digest v1.Hash, want platform) (*resolved, error) {
	raw, ok := s.readBlob(digest)
	if !ok {
		return nil, fmt.Errorf("%w: manifest %s", ErrNotFound, digest)
	}
	found, err := parseManifest(raw)
	if err != nil || found.Config == nil {
		return nil, errors.Join(err, ErrInvalid)
	}
	config, ok := s.readBlob(found.Config.Digest)
	if !ok {
		return nil, fmt.Errorf("%w: configuration %s", ErrNotFound, found.Config.Digest)
	}
	return want.resolved(digest, found.Layers, config)
}

// silent remembers for a while which registries did not answer, so that a node full of cached images starts them at
// once and not each after a wait of its own.
type silent struct {
	mu    sync.Mutex
	until map[string]time.Time
	after time.Duration
}

func (s *silent) has(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until[host])
}

func (s *silent) add(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = map[string]time.Time{}
	}
	s.until[host] = time.Now().Add(s.after)
}

// seal makes one name of words of which some are secret: without this store's key nobody can try passwords on it.
func (s *Store) seal(words ...string) string {
	sum := hmac.New(sha256.New, s.key)
	for _, word := range words {
		sum.Write([]byte(strconv.Itoa(len(word)) + ":" + word + ","))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// openKey reads the store's key, or makes it.
func (s *Store) openKey() error {
	path := filepath.Join(s.options.Dir, "key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == sha256.Size {
		s.key = key
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.key = make([]byte, sha256.Size)
	_, _ = rand.Read(s.key) // never fails
	return s.writeFile(path, s.key, false)
}

// touch notes that something is used now.
func touch(path string) {
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, now, unix.AT_SYMLINK_NOFOLLOW) // what is not there is not used
}
