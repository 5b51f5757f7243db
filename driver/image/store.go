package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"drover/driver/unpack"
)

// Store keeps images and archives of one node. Several may share a directory, in one process or in many.
type Store struct {
	options   Options
	log       *slog.Logger
	transport *guard // for registries
	client    *http.Client
	flights   flights
	staging   string
	lock      *os.File // of staging
	key       []byte
	quiet     silent
	tune      tuning

	collecting sync.Mutex
}

// tuning holds times that tests make shorter.
type tuning struct {
	idle   time.Duration // without a byte, after which a transfer is given up
	answer time.Duration // for small requests
	// patience is for asking what a tag means now where it is known what it meant before.
	patience time.Duration
	backoff  time.Duration // before the second of three tries; doubled then
	watch    time.Duration // between calls of progress functions
}

// dirs are the directories below Options.Dir.
func dirs() []string {
	return []string{"blobs", "layers", "archives", "sources", "tags", "notes", "leases", "staging"}
}

// Open makes or opens a store, and removes what dead processes have left unfinished.
func Open(options Options) (*Store, error) {
	if !filepath.IsAbs(options.Dir) || len(options.Unpacker) == 0 {
		return nil, errors.New("open image store: it needs an absolute directory and an unpacker")
	}
	for _, name := range dirs() {
		dir := filepath.Join(options.Dir, name)
		// Users of the host are not to read private images and droplets. The shim and the unpacker's parent are root.
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	s := &Store{
		options: options, log: options.Log,
		tune: tuning{idle: DefaultActivity, answer: time.Minute, patience: 5 * time.Second, backoff: time.Second, watch: 250 * time.Millisecond},
	}
	s.quiet.after = 30 * time.Second
	if options.Activity > 0 {
		s.tune.idle = options.Activity
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	base, err := newTransport(options.TLS)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.transport = &guard{inner: base, plain: slices.Clone(options.Insecure), backoff: s.tune.backoff}
	s.client = &http.Client{Transport: base, CheckRedirect: noDowngrade}
	if err := s.openStaging(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := s.openKey(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

// DefaultActivity is Options.Activity where it is zero.
const DefaultActivity = 2 * time.Minute

// Close gives the store's unfinished work up. Only tests need it: the next Open does the same.
func (s *Store) Close() error {
	s.client.CloseIdleConnections()
	return errors.Join(os.RemoveAll(s.staging), s.lock.Close())
}

// openStaging makes this process's directory for unfinished work, locked as long as the process lives, and removes
// those that nobody holds.
func (s *Store) openStaging() error {
	parent := filepath.Join(s.options.Dir, "staging")
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := sweep(filepath.Join(parent, entry.Name())); err != nil {
			s.log.Warn("cannot remove unfinished work", "dir", entry.Name(), "error", err)
		}
	}
	if s.staging, err = os.MkdirTemp(parent, "p"); err != nil {
		return err
	}
	if s.lock, err = os.Open(s.staging); err != nil {
		return err
	}
	return unix.Flock(int(s.lock.Fd()), unix.LOCK_EX)
}

func sweep(dir string) error {
	held, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // somebody works there
	}
	return os.RemoveAll(dir)
}

// stage makes a directory for one transfer, and one in it for the tree.
func (s *Store) stage() (dir, tree string, err error) {
	if dir, err = os.MkdirTemp(s.staging, "t"); err != nil {
		return "", "", err
	}
	tree = filepath.Join(dir, "tree")
	err = os.Mkdir(tree, 0o755)
	return dir, tree, err
}

// publish gives a finished tree its name. When another process was faster, its tree is as good.
func publish(tree, final string) error {
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return err
	}
	held, err := os.Open(tree)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	if err := unix.Syncfs(int(held.Fd())); err != nil { // a name must not outlive a power cut that its files did not
		return fmt.Errorf("sync: %w", err)
	}
	err = os.Rename(tree, final)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// build makes a tree and gives it its final name, or leaves nothing. Fill returns what the tree takes on the disk.
func (s *Store) build(final string, fill func(tree string) (int64, error)) error {
	dir, tree, err := s.stage()
	if err != nil {
		return err
	}
	bytes, err := fill(tree)
	if err == nil {
		err = publish(tree, final)
	}
	if err == nil {
		s.note(final, bytes)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// layerDir is where a layer with this diff id is or will be.
func (s *Store) layerDir(diffID v1.Hash) string {
	return filepath.Join(s.options.Dir, "layers", strconv.FormatUint(uint64(s.options.Stored.Host), 10), diffID.Algorithm, diffID.Hex)
}

// job is an unpack.Job into a staged tree.
func (s *Store) job(tree string) unpack.Job {
	return unpack.Job{Dest: tree, IDs: s.options.Stored}
}

// readBlob returns a manifest or configuration that is here and what it says it is.
func (s *Store) readBlob(digest v1.Hash) ([]byte, bool) {
	raw, err := os.ReadFile(s.blobPath(digest))
	if err != nil {
		return nil, false
	}
	sum, err := v1.Hasher(digest.Algorithm)
	if err != nil {
		return nil, false
	}
	sum.Write(raw)
	if fmt.Sprintf("%x", sum.Sum(nil)) != digest.Hex {
		return nil, false
	}
	touch(s.blobPath(digest))
	return raw, true
}

func (s *Store) writeBlob(digest v1.Hash, raw []byte) error {
	if old, ok := s.readBlob(digest); ok && bytes.Equal(old, raw) {
		return nil
	}
	return s.writeFile(s.blobPath(digest), raw, true)
}

func (s *Store) blobPath(digest v1.Hash) string {
	return filepath.Join(s.options.Dir, "blobs", digest.Algorithm, digest.Hex)
}

// writeFile writes a file so that it is there whole or not at all; when it is durable, also after a power cut.
func (s *Store) writeFile(path string, raw []byte, durable bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(s.staging, "f") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	if err == nil && durable {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

// Usage is what a store holds and what room there is.
type Usage struct {
	Layers, Archives, Leases int
	// FreeBytes and TotalBytes are of the store's file system.
	FreeBytes, TotalBytes uint64
	// Bytes is about what layers and archives take, as noted when they were unpacked.
	Bytes int64
}

// Usage counts what is here. It does not walk trees.
func (s *Store) Usage() (Usage, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(s.options.Dir, &stat); err != nil {
		return Usage{}, fmt.Errorf("look at image store: %w", err)
	}
	unit := uint64(stat.Bsize) //nolint:gosec // a block size is positive
	usage := Usage{FreeBytes: stat.Bavail * unit, TotalBytes: stat.Blocks * unit}
	notes, err := filepath.Glob(filepath.Join(s.options.Dir, "notes/*"))
	if err != nil {
		return Usage{}, fmt.Errorf("look at image store: %w", err)
	}
	for _, note := range notes {
		usage.Bytes += readNote(note)
	}
	for pattern, count := range map[string]*int{"layers/*/*/*": &usage.Layers, "archives/*": &usage.Archives, "leases/*": &usage.Leases} {
		found, err := filepath.Glob(filepath.Join(s.options.Dir, pattern))
		if err != nil {
			return Usage{}, fmt.Errorf("look at image store: %w", err)
		}
		*count = len(found)
	}
	return usage, nil
}
