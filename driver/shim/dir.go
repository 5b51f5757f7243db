package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"drover/driver"
	"drover/driver/cgroup"
)

// Dir is a task's state directory, as the shim itself uses it.
type Dir string

// Container reads the task's wish.
func (d Dir) Container() (driver.Container, error) { return readContainer(string(d)) }

// Groups returns the cgroups of a task: its container's, and the leaf of its shim.
func Groups(c driver.Container) (container, shim cgroup.Group, err error) {
	if container, err = cgroup.At(containerCgroup(c)); err != nil {
		return container, shim, err
	}
	shim, err = cgroup.At(shimCgroup(c, cgroup.V2()))
	return container, shim, err
}

// Runc is where libcontainer keeps its state.
func (d Dir) Runc() string { return filepath.Join(string(d), runcDir) }

// Etc is where the files that are bound into the container's /etc are.
func (d Dir) Etc() string { return filepath.Join(string(d), etcDir) }

// Disk is where the files are that the container writes outside of its mounts.
func (d Dir) Disk() string { return filepath.Join(string(d), diskDir) }

// SetShim notes the calling process as the task's shim.
func (d Dir) SetShim() error {
	id, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	if id.Exe, err = os.Executable(); err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	return writeJSON(string(d), shimFile, id)
}

// SetInit notes the container's process 1.
func (d Dir) SetInit(pid int) error {
	id, err := identify(pid)
	if err != nil {
		return err
	}
	return writeJSON(string(d), initFile, id)
}

// Init returns the number of the container's process 1 if that still runs.
func (d Dir) Init() (int, error) {
	var id identity
	if err := readJSON(string(d), initFile, &id); err != nil {
		return 0, err
	}
	if !id.alive() {
		return 0, ErrNotRunning
	}
	return id.PID, nil
}

// SetExit writes how the task ended; when it returns, that is on the disk.
func (d Dir) SetExit(exit driver.Exit) error { return writeJSON(string(d), exitFile, exit) }

// Append adds an event to the task's file of events.
func (d Dir) Append(e Event) error {
	raw, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(string(d), eventsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	_, err = file.Write(append(raw, '\n'))
	return errors.Join(err, file.Close())
}

// Report tells the plugin that waits in Start that the container runs, or why it does not. It may be called once.
func Report(failure error) error {
	pipe := os.NewFile(readyFD, "report")
	if pipe == nil {
		return nil
	}
	var r ready
	if failure != nil {
		r.Error = failure.Error()
	}
	return errors.Join(json.NewEncoder(pipe).Encode(r), pipe.Close())
}
