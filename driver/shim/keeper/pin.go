package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// pin resolves the sources of mounts that have a base, and mounts them in this process's own namespace: what is bound
// into the container later is what was looked at now, whoever puts a link in its place meanwhile.
func (k *keeper) pin(mounts []driver.Mount) ([]driver.Mount, error) {
	pinned := slices.Clone(mounts)
	for n, m := range mounts {
		if m.Base == "" {
			continue
		}
		at := filepath.Join(string(k.dir), "mounts", strconv.Itoa(n))
		if err := pinOne(m, at); err != nil {
			return nil, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		pinned[n].Source = at
	}
	return pinned, nil
}

func pinOne(m driver.Mount, at string) error {
	source, err := openBeneath(m.Base, m.Source, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		err = os.MkdirAll(at, 0o711)
	case info.Mode().IsRegular():
		err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o711), os.WriteFile(at, nil, 0o600))
	default:
		return fmt.Errorf("%s is neither a directory nor a file", m.Source)
	}
	if err != nil {
		return fmt.Errorf("make its place: %w", err)
	}
	tree, err := unix.OpenTree(int(source.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open %s: %w", m.Source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", m.Source, err)
	}
	return nil
}

// openBeneath opens a path below a directory, and refuses links on the way between the two.
func openBeneath(base, path string, flags uint64) (*os.File, error) {
	name, err := filepath.Rel(base, path)
	if err != nil {
		return nil, fmt.Errorf("path %s: %w", path, err)
	}
	dir, err := os.OpenFile(base, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
