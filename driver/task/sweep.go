package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"drover/driver/shim"
)

// DefaultOrphanGrace is how long what nobody asks for is left alone.
const DefaultOrphanGrace = 5 * time.Minute

// Sweep removes what forgotten tasks left on this node, until the context ends. A task is forgotten when neither a start
// nor a recovery has named it to this process for the whole grace, which begins when this process sees it first: an agent
// recovers its tasks within seconds of starting its plugin. And then it is removed only when
//
//	the host was restarted since: nothing of it can run, and its cgroups and mounts are gone
//	its allocation's directory is gone: Nomad has collected it; if the container still runs, it is ended
//	it has but a range of user ids: its start was interrupted before there was a container
//
// Whatever else there is may be another agent's, or Nomad's yet: it is left, and named in the log once.
func (m *Manager) Sweep(ctx context.Context) {
	if err := m.prepare(); err != nil {
		m.log.Warn("cannot look for what forgotten tasks left", "error", err)
		return
	}
	seen := map[string]time.Time{}
	ticker := time.NewTicker(min(max(m.node.OrphanGrace/5, 100*time.Millisecond), time.Minute))
	defer ticker.Stop()
	for {
		if err := m.sweepOnce(ctx, seen, time.Now()); err != nil && ctx.Err() == nil {
			m.log.Warn("cannot remove what a forgotten task left; it is tried again", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweepOnce notes when each unknown container was seen first, and removes those whose time has come.
func (m *Manager) sweepOnce(ctx context.Context, seen map[string]time.Time, now time.Time) error {
	there, err := m.containers()
	if err != nil {
		return err
	}
	for id := range seen {
		if !slices.Contains(there, id) {
			delete(seen, id)
		}
	}
	var last error
	for _, id := range there {
		if m.knows(id) {
			delete(seen, id)
			continue
		}
		if _, again := seen[id]; !again {
			seen[id] = now
		}
		if now.Sub(seen[id]) < m.node.OrphanGrace {
			continue
		}
		if err := m.sweepOne(ctx, id); err != nil {
			last = fmt.Errorf("container %s: %w", id, err)
		}
	}
	return last
}

func (m *Manager) sweepOne(ctx context.Context, id string) error {
	_, err := os.Stat(m.dir(id))
	interrupted := errors.Is(err, fs.ErrNotExist)
	remains, err := shim.Examine(m.dir(id))
	if err != nil {
		return err
	}
	why := forgotten(remains, interrupted, remains.AllocDirExists())
	if why == "" {
		if _, again := m.warned.LoadOrStore("orphan "+id, true); !again {
			m.log.Warn("a container is left that nobody asks for; it goes with its allocation's directory, or at the next boot",
				"container", id, "running", remains.Running, "alloc_dir", remains.AllocDir)
		}
		return nil
	}
	m.log.Info("removing what a forgotten task left", "container", id, "running", remains.Running, "because", why)
	return m.wipe(ctx, id)
}

// forgotten says why something that nobody asks for may be removed; empty when it may not.
func forgotten(r shim.Remains, interrupted, allocDir bool) string {
	switch {
	case interrupted:
		return "its start was interrupted"
	case r.Rebooted:
		return "the host was restarted"
	case !allocDir:
		return "its allocation is gone"
	}
	return ""
}

// containers lists the containers that have a directory or user ids.
func (m *Manager) containers() ([]string, error) {
	var ids []string
	for dir, pattern := range map[string]string{"tasks": "*", "ranges": "*/*"} {
		found, err := fs.Glob(os.DirFS(filepath.Join(m.node.StateDir, dir)), pattern)
		if err != nil {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		for _, name := range found {
			ids = append(ids, filepath.Base(name))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// knows reports whether a container belongs to a task that this process has started, starts or has recovered.
func (m *Manager) knows(containerID string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.starting[containerID] > 0 {
		return true
	}
	for _, t := range m.tasks {
		if t.ContainerID == containerID {
			return true
		}
	}
	return false
}

// starts notes that a container is being started, until the returned function is called.
func (m *Manager) starts(containerID string) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starting[containerID]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.starting[containerID]--; m.starting[containerID] == 0 {
			delete(m.starting, containerID)
		}
	}
}
