package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// pin resolves the sources of mounts that have a base, or are the image's own, and mounts them in this process's own namespace: what is bound
// into the container later is what was looked at now, whoever puts a link in its place meanwhile.
func (k *keeper) pin(mounts []driver.Mount) ([]driver.Mount, error) {
	pinned := slices.Clone(mounts)
	for n, m := range mounts {
		at := filepath.Join(string(k.dir), "mounts", strconv.Itoa(n))
		var err error
		switch {
		case m.Image:
			err = k.pinImage(m, at)
		case m.Base == "" || m.Tmpfs != nil:
			continue
		default:
			err = pinOne(m, at)
		}
		if err != nil {
			return nil, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		pinned[n].Source = at
	}
	return pinned, nil
}

func pinOne(m driver.Mount, at string) error {
	source, err := openSource(m)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	return pinFile(source, at)
}

// openSource opens what a mount shows, by its path alone: nothing happens to it.
func openSource(m driver.Mount) (*os.File, error) {
	if m.Base == "" {
		return os.OpenFile(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	source, err := openBeneath(m.Base, m.Source, unix.O_PATH)
	if !m.Create || !errors.Is(err, os.ErrNotExist) {
		return source, err
	}
	if err := makeBeneath(m.Base, m.Source); err != nil {
		return nil, err
	}
	return openBeneath(m.Base, m.Source, unix.O_PATH)
}

// pinFile mounts an open file or directory at a path of the state directory.
func pinFile(source *os.File, at string) error {
	info, err := source.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		err = os.MkdirAll(at, 0o711)
	case info.Mode().IsRegular(), info.Mode()&(os.ModeSocket|os.ModeNamedPipe) != 0:
		err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o711), os.WriteFile(at, nil, 0o600))
	default:
		return fmt.Errorf("%s is neither a directory nor a file; devices are given by the option devices", source.Name())
	}
	if err != nil {
		return fmt.Errorf("make its place: %w", err)
	}
	tree, err := openTree(source)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", source.Name(), err)
	}
	return nil
}

// openTree makes a mount, not yet anywhere, of an open file and what is mounted below it.
func openTree(source *os.File) (int, error) {
	tree, err := unix.OpenTree(int(source.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", source.Name(), err)
	}
	return tree, nil
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
	return openIn(dir, name, path, flags)
}

func openIn(dir *os.File, name, path string, flags uint64) (*os.File, error) {
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
			Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // EAGAIN: a rename was under way
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		if flags&unix.O_PATH != 0 && isLink(fd) { // which O_PATH opens itself
			_ = unix.Close(fd)
			return nil, &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

func isLink(fd int) bool {
	var stat unix.Stat_t
	return unix.Fstat(fd, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK
}

// makeBeneath makes the missing directories of a path below a base, for everybody to write, as Nomad makes a task's own.
func makeBeneath(base, path string) error {
	name, err := filepath.Rel(base, path)
	if err != nil {
		return fmt.Errorf("path %s: %w", path, err)
	}
	dir, err := os.OpenFile(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := stepInto(dir, part, path)
		_ = dir.Close()
		if err != nil {
			return err
		}
		dir = next
	}
	return dir.Close()
}

func stepInto(dir *os.File, part, path string) (*os.File, error) {
	made := unix.Mkdirat(int(dir.Fd()), part, 0o777)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkdir", Path: path, Err: made}
	}
	next, err := openIn(dir, part, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil || made != nil {
		return next, err
	}
	// The umask took something away.
	if err := os.Chmod("/proc/self/fd/"+strconv.Itoa(int(next.Fd())), 0o777); err != nil {
		_ = next.Close()
		return nil, err
	}
	return next, nil
}
