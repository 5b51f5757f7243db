package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Remains is what a state directory tells of a task that nobody asks for.
type Remains struct {
	// Running says that the task's shim (unless it has written exit.json), its process 1 or anything else in its cgroup
	// still runs.
	Running bool
	// Rebooted says that the task was started before the host was.
	Rebooted bool
	// AllocDir is the allocation's directory; empty when the task does not say.
	AllocDir string
}

// Examine looks at a state directory, and changes nothing. One that is not there, or holds no task, has no remains.
func Examine(dir string) (Remains, error) {
	var r Remains
	c, err := readContainer(dir)
	if errors.Is(err, ErrGone) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r.AllocDir = c.AllocDir
	if r.Rebooted, err = rebooted(dir); err != nil || r.Rebooted {
		return r, err
	}
	_, ended, err := readExit(dir)
	if err != nil {
		return r, err
	}
	for _, name := range []string{shimFile, initFile} {
		if name == shimFile && ended { // it only says its last words
			continue
		}
		var id identity
		if readJSON(dir, name, &id) == nil && id.alive() {
			r.Running = true
			return r, nil
		}
	}
	group, _, err := Groups(c)
	if err != nil {
		return r, err
	}
	pids, err := group.PIDs()
	r.Running = len(pids) > 0
	return r, err
}

// rebooted reports whether the host was restarted after the task: the identities of its processes name another boot.
func rebooted(dir string) (bool, error) {
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	for _, name := range []string{shimFile, initFile} {
		var id identity
		if err := readJSON(dir, name, &id); err == nil {
			return id.Boot != boot, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// lost says that a task ran before the host was restarted, and that nobody saw its end.
func lost(dir string) error {
	if _, ended, err := readExit(dir); err != nil || ended {
		return err
	}
	if before, err := rebooted(dir); err != nil || !before {
		return err
	}
	return fmt.Errorf("%w: the host was restarted while the task of %s ran", ErrGone, dir)
}

// AllocDirExists reports whether the allocation that the remains belong to still has its directory. Whoever did not note
// it is taken to have one; and where the directory of all allocations is missing too, it is a disk that is not mounted.
func (r Remains) AllocDirExists() bool {
	if r.AllocDir == "" {
		return true
	}
	if _, err := os.Stat(r.AllocDir); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	_, err := os.Stat(filepath.Dir(r.AllocDir))
	return err != nil
}
