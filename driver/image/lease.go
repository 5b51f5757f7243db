package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// leasePath names an owner's lease file.
func (s *Store) leasePath(owner string) (string, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9_.-]{1,200}$`).MatchString(owner) {
		return "", fmt.Errorf("lease layers: %q is no name of an owner", owner)
	}
	return filepath.Join(s.options.Dir, "leases", owner+".json"), nil
}

// Lease notes on disk that an owner, such as a container, uses the layers. It replaces the owner's earlier lease. A
// layer that was collected before that is ErrUnreachable: it can be had again.
func (s *Store) Lease(owner string, layers []driver.Layer) error {
	if _, err := s.leasePath(owner); err != nil {
		return err
	}
	if err := s.reserve(owner, layers); err != nil {
		return explain("lease layers for "+owner, err)
	}
	for _, layer := range layers {
		if strings.HasPrefix(layer.Dir, s.options.Dir+"/") && !isDir(layer.Dir) {
			return fmt.Errorf("lease layers for %s: %w: %s was removed meanwhile to make room", owner, ErrUnreachable, filepath.Base(layer.Dir))
		}
	}
	return nil
}

// reserve is Lease for layers that may not be there yet.
func (s *Store) reserve(owner string, layers []driver.Layer) error {
	if owner != "" {
		path, err := s.leasePath(owner)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(layers)
		if err != nil {
			return err
		}
		// No owner outlives a power cut, so the file need not.
		if err := s.locked(unix.LOCK_SH, func() error { return s.writeFile(path, raw, false) }); err != nil {
			return err
		}
	}
	s.touch(layers)
	return nil
}

// touch notes that layers are used now.
func (s *Store) touch(layers []driver.Layer) {
	for _, layer := range layers {
		touch(s.notePath(layer.Dir))
	}
}

// Release ends an owner's lease; that there is none is no error. From now on the layers count as unused.
func (s *Store) Release(owner string) error {
	path, err := s.leasePath(owner)
	if err != nil {
		return err
	}
	layers, err := readLease(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.touch(layers)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release layers of %s: %w", owner, err)
	}
	return nil
}

// Owners lists those who hold a lease.
func (s *Store) Owners() ([]string, error) {
	files, err := os.ReadDir(filepath.Join(s.options.Dir, "leases"))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var owners []string
	for _, file := range files {
		owners = append(owners, strings.TrimSuffix(file.Name(), ".json"))
	}
	return owners, nil
}
