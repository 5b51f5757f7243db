package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"drover/driver"
	"drover/driver/quota"
)

// projects gives each container a project id of the file system that the state directory is on. Who has which is a
// directory of files NUMBER.CONTAINER. An id that still has files, such as those that an ended task left in its
// allocation, is given to nobody but to the task that finds its own directory marked with it.
type projects struct {
	dir  string
	base uint32
	// cause says why there are no project quotas here; nil when there are.
	cause error
	mu    sync.Mutex
}

func openProjects(dir string, base int64) (*projects, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of project ids: %w", err)
	}
	if base == 0 {
		base = DefaultProjectBase
	}
	first := uint32(base) //nolint:gosec // validated
	// The last id is for trying it out.
	return &projects{dir: dir, base: first, cause: quota.Detect(dir, first+ProjectCount-1)}, nil
}

// lock keeps other goroutines and other plugins out.
func (p *projects) lock() (unlock func(), err error) { return lockDir(&p.mu, p.dir, "project ids") }

// Acquire returns a container's project id, 0 where there are no project quotas. Own is a directory of the task that may
// have one from an earlier start.
func (p *projects) Acquire(containerID, own string) (uint32, error) {
	if p.cause != nil {
		return 0, nil
	}
	unlock, err := p.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return 0, fmt.Errorf("list project ids: %w", err)
	}
	taken := map[uint32]bool{}
	for _, entry := range entries {
		number, _, _ := strings.Cut(entry.Name(), ".")
		if n, err := strconv.ParseUint(number, 10, 32); err == nil {
			taken[uint32(n)] = true
		}
	}
	id, err := p.choose(taken, own)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(p.dir, strconv.FormatUint(uint64(id), 10)+"."+containerID), nil, 0o600); err != nil {
		return 0, fmt.Errorf("reserve project id: %w", err)
	}
	return id, nil
}

func (p *projects) choose(taken map[uint32]bool, own string) (uint32, error) {
	if id := quota.Of(own); id >= p.base && id < p.base+ProjectCount-1 && !taken[id] {
		return id, nil
	}
	for id := p.base; id < p.base+ProjectCount-1; id++ {
		if taken[id] {
			continue
		}
		used, _, err := quota.Usage(p.dir, id)
		if err != nil {
			return 0, err
		}
		if used == (quota.Amount{}) {
			return id, nil
		}
	}
	return 0, errors.New("every project id is in use; set the plugin option disk.project_id_base to a free range")
}

// Release forgets a container. One that has none is no error.
func (p *projects) Release(containerID string) error {
	found, err := fs.Glob(os.DirFS(p.dir), "*."+containerID)
	if err != nil {
		return fmt.Errorf("release project id: %w", err)
	}
	for _, name := range found {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release project id: %w", err)
		}
	}
	return nil
}

// Quota says how this node limits what tasks write, in the words of the node's attribute, and why not by project quotas.
func (m *Manager) Quota() (way string, cause error) {
	if err := m.prepare(); err != nil {
		return "measured", err
	}
	if m.projects.cause != nil {
		return "measured", m.projects.cause
	}
	return "project", nil
}

// reserveDisk finds out what the task's disk space is counted by, and what its image takes of it.
func (s *start) reserveDisk(ctx context.Context) (err error) {
	f := &s.facts
	// Outside of a user namespace whoever owns a file may give it to another project.
	if f.ids.Size > 0 {
		own := filepath.Join(f.req.AllocDir, f.req.TaskName, "local")
		if f.project, err = s.m.projects.Acquire(f.id, own); err != nil {
			return err
		}
	}
	stack := 0
	if s.root.Stack != "" {
		stack = f.imageLayers
	}
	for _, layer := range f.counted(stack) {
		size, err := s.m.layerSize(ctx, layer)
		if err != nil {
			return fmt.Errorf("measure the image: %w", err)
		}
		f.imageUse += size
	}
	return nil
}

// layerSize measures a layer once: it never changes.
func (m *Manager) layerSize(ctx context.Context, layer driver.Layer) (int64, error) {
	if size, known := m.sizes.Load(layer.Dir); known {
		return size.(int64), nil //nolint:forcetypeassert // nothing else is stored
	}
	dir, err := os.Open(layer.Dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = dir.Close() }()
	used, err := quota.Measure(ctx, dir, quota.Amount{})
	if err == nil {
		m.sizes.Store(layer.Dir, used.Bytes)
	}
	return used.Bytes, err
}
