package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// idPool gives each allocation a range of host ids that no other live allocation has. Who has which is in the file
// system: a directory SLOT.ALLOCATION with an empty file for each of the allocation's containers. Slots mean what the
// operator's options say; when these change, the directories of what still runs become rHOST-SIZE.ALLOCATION, and nobody
// is given a slot that overlaps them.
type idPool struct {
	dir string
	ids IDs
	mu  sync.Mutex
}

var errPoolEmpty = errors.New("every range of user ids is in use")

func openIDPool(dir string, ids IDs) (*idPool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of user id ranges: %w", err)
	}
	p := &idPool{dir: dir, ids: ids}
	unlock, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return p, p.adopt()
}

// geometryFile, behind the directory's name, says what slots meant when they were last given.
const geometryFile = ".geometry"

// adopt renames the directories of an earlier choice of ids, so that they go on saying whose is what.
func (p *idPool) adopt() error {
	file := p.dir + geometryFile
	now := fmt.Sprintf("%d %d", p.ids.HostBase, p.ids.Size)
	text, err := os.ReadFile(file)
	if err == nil && string(text) == now {
		return nil
	}
	var was IDs
	if _, err := fmt.Sscanf(string(text), "%d %d", &was.HostBase, &was.Size); err == nil {
		if err := p.rename(was); err != nil {
			return err
		}
	}
	if err := os.WriteFile(file+".new", []byte(now), 0o600); err != nil {
		return fmt.Errorf("remember what user id ranges mean: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("remember what user id ranges mean: %w", err)
	}
	return nil
}

func (p *idPool) rename(was IDs) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("list user id ranges: %w", err)
	}
	for _, entry := range entries {
		number, owner, _ := strings.Cut(entry.Name(), ".")
		slot, err := strconv.ParseUint(number, 10, 32)
		if err != nil || !entry.IsDir() {
			continue
		}
		r := was.Slot(uint32(slot))
		name := fmt.Sprintf("r%d-%d.%s", r.Host, r.Size, owner)
		if err := os.Rename(filepath.Join(p.dir, entry.Name()), filepath.Join(p.dir, name)); err != nil {
			return fmt.Errorf("keep the user ids of allocation %s: %w", owner, err)
		}
	}
	return nil
}

// lock keeps other goroutines out, and other processes: two plugins must never give one range to two allocations.
func (p *idPool) lock() (unlock func(), err error) { return lockDir(&p.mu, p.dir, "user id ranges") }

// lockDir takes a directory's lock and, inside of this process, the mutex that goes with it.
func lockDir(mu *sync.Mutex, path, what string) (unlock func(), err error) {
	mu.Lock()
	dir, err := os.Open(path)
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		_ = dir.Close() // nil is fine
		mu.Unlock()
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	return func() {
		_ = dir.Close() // and with it the lock
		mu.Unlock()
	}, nil
}

// Acquire returns the allocation's range, and remembers that the container uses it.
func (p *idPool) Acquire(allocID, containerID string) (driver.IDRange, error) {
	unlock, err := p.lock()
	if err != nil {
		return driver.IDRange{}, err
	}
	defer unlock()
	taken, mine, err := p.list(allocID)
	if err != nil {
		return driver.IDRange{}, err
	}
	if mine.name == "" {
		slot := firstFree(taken, int(p.ids.Count))
		if slot < 0 {
			return driver.IDRange{}, fmt.Errorf("%w: %d allocations; raise the plugin option userns.count", errPoolEmpty, len(taken))
		}
		mine = idEntry{name: strconv.Itoa(slot) + "." + allocID, ids: p.ids.Slot(uint32(slot))}
	}
	dir := filepath.Join(p.dir, mine.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return driver.IDRange{}, fmt.Errorf("reserve user ids: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, containerID), nil, 0o600); err != nil {
		_ = os.Remove(dir)
		return driver.IDRange{}, fmt.Errorf("reserve user ids: %w", err)
	}
	return mine.ids, nil
}

// Release forgets a container; the last one of an allocation frees its range. Unknown ones are no error.
func (p *idPool) Release(containerID string) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	found, err := fs.Glob(os.DirFS(p.dir), "*/"+containerID)
	if err != nil {
		return fmt.Errorf("release user ids: %w", err)
	}
	for _, name := range found {
		file := filepath.Join(p.dir, name)
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release user ids: %w", err)
		}
		// Fails while other containers of the allocation use the range, and then must.
		_ = os.Remove(filepath.Dir(file))
	}
	return nil
}

// idEntry is a directory of the pool.
type idEntry struct {
	name string
	ids  driver.IDRange
}

// list returns the taken slots, and the allocation's own directory, if it has one.
func (p *idPool) list(allocID string) (map[int]bool, idEntry, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, idEntry{}, fmt.Errorf("list user id ranges: %w", err)
	}
	taken, mine := make(map[int]bool, len(entries)), idEntry{}
	for _, entry := range entries {
		number, owner, _ := strings.Cut(entry.Name(), ".")
		ids, ok := p.parse(number, taken)
		if ok && owner == allocID {
			mine = idEntry{name: entry.Name(), ids: ids}
		}
	}
	return taken, mine, nil
}

// parse reads the first part of a directory's name, and marks the slots that it takes.
func (p *idPool) parse(text string, taken map[int]bool) (driver.IDRange, bool) {
	if slot, err := strconv.ParseUint(text, 10, 32); err == nil {
		taken[int(slot)] = true
		return p.ids.Slot(uint32(slot)), slot < uint64(p.ids.Count)
	}
	var r driver.IDRange
	if _, err := fmt.Sscanf(text, "r%d-%d", &r.Host, &r.Size); err != nil || r.Size == 0 {
		return r, false
	}
	// In numbers that do not wrap: the first and the last slot that it reaches into.
	first := (int64(r.Host)-int64(p.ids.HostBase))/int64(p.ids.Size) - 1
	last := (int64(r.Host)+int64(r.Size)-1-int64(p.ids.HostBase))/int64(p.ids.Size) - 1
	for slot := max(first, 0); slot <= min(last, int64(p.ids.Count)-1); slot++ {
		taken[int(slot)] = true
	}
	return r, true
}

func firstFree(taken map[int]bool, count int) int {
	for slot := range count {
		if !taken[slot] {
			return slot
		}
	}
	return -1
}
