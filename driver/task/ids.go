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
// system: a directory SLOT.ALLOCATION with an empty file for each of the allocation's containers.
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
	return &idPool{dir: dir, ids: ids}, nil
}

// lock keeps other goroutines out, and other processes: two plugins must never give one range to two allocations.
func (p *idPool) lock() (unlock func(), err error) {
	p.mu.Lock()
	dir, err := os.Open(p.dir)
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		_ = dir.Close() // nil is fine
		p.mu.Unlock()
		return nil, fmt.Errorf("lock user id ranges: %w", err)
	}
	return func() {
		_ = dir.Close() // and with it the lock
		p.mu.Unlock()
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
	slot := mine
	if slot < 0 {
		if slot = firstFree(taken, int(p.ids.Count)); slot < 0 {
			return driver.IDRange{}, fmt.Errorf("%w: %d allocations; raise the plugin option userns.count", errPoolEmpty, len(taken))
		}
	}
	dir := filepath.Join(p.dir, strconv.Itoa(slot)+"."+allocID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return driver.IDRange{}, fmt.Errorf("reserve user ids: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, containerID), nil, 0o600); err != nil {
		_ = os.Remove(dir)
		return driver.IDRange{}, fmt.Errorf("reserve user ids: %w", err)
	}
	return p.ids.Slot(uint32(slot)), nil
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

// list returns the taken slots, and the allocation's own or -1.
func (p *idPool) list(allocID string) (map[int]bool, int, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, -1, fmt.Errorf("list user id ranges: %w", err)
	}
	taken, mine := make(map[int]bool, len(entries)), -1
	for _, entry := range entries {
		number, owner, _ := strings.Cut(entry.Name(), ".")
		slot, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		taken[slot] = true
		if owner == allocID && slot < int(p.ids.Count) {
			mine = slot
		}
	}
	return taken, mine, nil
}

func firstFree(taken map[int]bool, count int) int {
	for slot := range count {
		if !taken[slot] {
			return slot
		}
	}
	return -1
}
