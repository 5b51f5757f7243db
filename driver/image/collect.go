package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/unpack"
)

// Limits say when layers and archives are removed that nobody uses. The zero value removes nothing.
type Limits struct {
	// Above High percent of the file system in use, the longest unused go first, until Low percent are in use.
	High, Low int
	// Delay is how long something unused is kept in any case, unless a transfer finds the disk full.
	Delay time.Duration
	// MaxAge is after how long something unused goes in any case; zero means never.
	MaxAge time.Duration
}

const (
	// smallAge is after how long manifests and notes go that nothing asked for, where no MaxAge says otherwise.
	smallAge = 30 * 24 * time.Hour
	// orphanAge is after how long a lease is looked at whose owner may have died at its start.
	orphanAge = time.Hour
)

// Collected is what a collection has removed.
type Collected struct {
	Trees int
	Bytes int64
}

// item is a tree that may be removed, and when it was used last.
type item struct {
	dir, note string
	bytes     int64
	used      time.Time
}

// Collect removes what Options.Limits say. It never takes what is leased, and may run while other goroutines and other
// processes use the store.
func (s *Store) Collect() (Collected, error) {
	limits := s.options.Limits
	return s.collect(limits.Delay, false)
}

// makeRoom is Collect for a full disk: what nobody leases goes, however short ago it was used.
func (s *Store) makeRoom() (int64, error) {
	done, err := s.collect(0, true)
	return done.Bytes, err
}

func (s *Store) collect(delay time.Duration, full bool) (Collected, error) {
	limits := s.options.Limits
	if limits == (Limits{}) {
		return Collected{}, nil
	}
	s.collecting.Lock()
	defer s.collecting.Unlock()
	items, err := s.items()
	if err != nil {
		return Collected{}, fmt.Errorf("collect images: %w", err)
	}
	excess, err := s.excess(limits, full)
	if err != nil {
		return Collected{}, fmt.Errorf("collect images: %w", err)
	}
	var chosen []item
	for _, it := range items {
		age := time.Since(it.used)
		if age < delay || excess <= 0 && (limits.MaxAge == 0 || age < limits.MaxAge) {
			continue
		}
		chosen = append(chosen, it)
		excess -= it.bytes
	}
	done, err := s.remove(chosen)
	if err = errors.Join(err, s.collectSmall(limits)); err != nil {
		return done, fmt.Errorf("collect images: %w", err)
	}
	if done.Trees > 0 {
		s.log.Info("removed what nobody used", "trees", done.Trees, "bytes", done.Bytes)
	}
	return done, nil
}

// excess is how many bytes are to be given back: none below the high watermark, unless the disk is full.
func (s *Store) excess(limits Limits, full bool) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(s.options.Dir, &stat); err != nil {
		return 0, err
	}
	total, unit := int64(stat.Blocks), stat.Bsize //nolint:gosec // no disk is that large
	used := total - int64(stat.Bavail)            //nolint:gosec // as above
	if total == 0 || !full && used*100 < total*int64(limits.High) {
		return 0, nil
	}
	excess := (used - total*int64(limits.Low)/100) * unit
	if full {
		excess = max(excess, total*unit/10) // it may be inodes that ran out, or somebody else's quota
	}
	return excess, nil
}

// items lists all trees that are not leased, the longest unused first. Those of older versions have no note: they get one.
func (s *Store) items() ([]item, error) {
	leased, err := s.leased()
	if err != nil {
		return nil, err
	}
	var list []item
	for _, pattern := range []string{"layers/*/*/*", "archives/*"} {
		found, err := filepath.Glob(filepath.Join(s.options.Dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, dir := range found {
			if leased[dir] {
				continue
			}
			it := item{dir: dir, note: s.notePath(dir)}
			info, err := os.Stat(it.note)
			if err != nil {
				s.note(dir, treeSize(dir))
				continue // it was used now, for all that we know
			}
			it.used, it.bytes = info.ModTime(), readNote(it.note)
			list = append(list, it)
		}
	}
	slices.SortFunc(list, func(a, b item) int { return a.used.Compare(b.used) })
	return list, nil
}

// remove takes chosen trees away, but those that somebody has leased or used meanwhile. The names go under the lock,
// the files after it.
func (s *Store) remove(chosen []item) (Collected, error) {
	if len(chosen) == 0 {
		return Collected{}, nil
	}
	bin, err := os.MkdirTemp(s.staging, "g")
	if err != nil {
		return Collected{}, err
	}
	var done Collected
	err = s.locked(unix.LOCK_EX, func() error {
		leased, err := s.leased()
		if err != nil {
			return err
		}
		for n, it := range chosen {
			info, err := os.Stat(it.note)
			if leased[it.dir] || err != nil || info.ModTime().After(it.used) { // used, or removed, meanwhile
				continue
			}
			if err := os.Rename(it.dir, filepath.Join(bin, strconv.Itoa(n))); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			_ = os.Remove(it.note) // one that is left is swept later
			done.Trees++
			done.Bytes += it.bytes
		}
		return nil
	})
	return done, errors.Join(err, os.RemoveAll(bin))
}

// leased are the directories that somebody uses. Leases of starts that died are dropped.
func (s *Store) leased() (map[string]bool, error) {
	files, err := os.ReadDir(filepath.Join(s.options.Dir, "leases"))
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, file := range files {
		path := filepath.Join(s.options.Dir, "leases", file.Name())
		layers, err := readLease(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lease %s: %w", file.Name(), err) // nothing is removed that may be in use
		}
		info, err := file.Info()
		owner := strings.TrimSuffix(file.Name(), ".json")
		if err == nil && s.options.Alive != nil && time.Since(info.ModTime()) > orphanAge && !s.options.Alive(owner) {
			_ = os.Remove(path)
			continue
		}
		for _, layer := range layers {
			used[layer.Dir] = true
		}
	}
	return used, nil
}

func readLease(path string) ([]driver.Layer, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var layers []driver.Layer
	return layers, json.Unmarshal(raw, &layers)
}

// collectSmall removes manifests, tags and sources that were not asked for in a long time, sources whose archive is
// gone, and notes without a tree.
func (s *Store) collectSmall(limits Limits) error {
	age := limits.MaxAge
	if age == 0 {
		age = smallAge
	}
	var errs []error
	for pattern, useless := range map[string]func(path string) bool{
		"blobs/*/*":      func(string) bool { return false },
		"tags/*.json":    func(string) bool { return false },
		"sources/*.json": func(path string) bool { return !isDir(readSource(path).Dir) },
		"notes/*":        func(path string) bool { return !isDir(s.notedDir(path)) },
	} {
		found, err := filepath.Glob(filepath.Join(s.options.Dir, pattern))
		errs = append(errs, err)
		for _, path := range found {
			info, err := os.Lstat(path)
			if err != nil {
				continue
			}
			unused := time.Since(info.ModTime())
			if unused > orphanAge && useless(path) || unused > age && !strings.HasPrefix(pattern, "notes") {
				if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// notePath is where a tree's size is noted; the note's time is when the tree was used last.
func (s *Store) notePath(dir string) string {
	name := strings.TrimPrefix(dir, s.options.Dir+"/")
	return filepath.Join(s.options.Dir, "notes", strings.ReplaceAll(name, "/", "_"))
}

func (s *Store) notedDir(note string) string {
	return filepath.Join(s.options.Dir, strings.ReplaceAll(filepath.Base(note), "_", "/"))
}

// note notes how large a tree is, and that it is used now.
func (s *Store) note(dir string, bytes int64) {
	if err := s.writeFile(s.notePath(dir), []byte(strconv.FormatInt(bytes, 10)), false); err != nil {
		s.log.Warn("cannot note the size of a tree", "dir", dir, "error", err)
	}
}

func readNote(path string) int64 {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	bytes, _ := strconv.ParseInt(string(raw), 10, 64) // what cannot be read counts as nothing
	return bytes
}

// diskUse is about what a tree takes on a disk: the last block of a file is half empty on average.
func diskUse(stats unpack.Stats) int64 { return stats.Bytes + stats.Entries*2048 }

// treeSize counts what a tree takes.
func treeSize(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		var stat unix.Stat_t
		if unix.Lstat(path, &stat) == nil {
			sum += stat.Blocks * 512
		}
		return nil
	})
	return sum
}

// locked does work under the lock that keeps collections and those apart who take something into use, of all processes.
func (s *Store) locked(how int, work func() error) error {
	file, err := os.OpenFile(filepath.Join(s.options.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for {
		err := unix.Flock(int(file.Fd()), how)
		if err == nil {
			return work()
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock: %w", err)
		}
	}
}
