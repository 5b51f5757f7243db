package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// shared are mounts that the container has in common with the host, by their place in the wish's list: a mount that is
// made below one of them on either side appears on the other. They must be opened while this process still shares its
// mounts with the host; and no container with a user namespace could bind them, because the kernel gives it copies that
// only listen. So this process puts them into the container's mount namespace, over private ones.
type shared map[int]int

// openShared opens the shared mounts, and makes sure that those that are to hear of the host's mounts can.
func openShared(mounts []driver.Mount) (shared, error) {
	trees := shared{}
	for n, m := range mounts {
		if m.Propagation == "" || m.Tmpfs != nil || m.Image {
			continue
		}
		tree, err := openPropagating(m)
		if err != nil {
			trees.close()
			return nil, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		if tree >= 0 {
			trees[n] = tree
		}
	}
	return trees, nil
}

func (s shared) close() {
	for _, tree := range s {
		_ = unix.Close(tree)
	}
}

// openPropagating returns the tree of a shared mount, and -1 for one that only listens.
func openPropagating(m driver.Mount) (int, error) {
	source, err := openSource(m)
	if err != nil {
		return -1, err
	}
	defer func() { _ = source.Close() }()
	var stat unix.Statx_t
	if err := unix.Statx(int(source.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stat); err != nil {
		return -1, fmt.Errorf("look up mount of %s: %w", m.Source, err)
	}
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return -1, err
	}
	defer func() { _ = info.Close() }()
	at, peers, err := propagationOf(bufio.NewScanner(info), stat.Mnt_id)
	switch {
	case err != nil:
		return -1, err
	case m.Propagation == driver.PropagationSlave && peers == "":
		return -1, fmt.Errorf("%s is on %s, whose mounts this host shows to nobody; `mount --make-rshared %s` on the host would", m.Source, at, at)
	case m.Propagation == driver.PropagationSlave:
		return -1, nil
	case peers != "shared":
		return -1, fmt.Errorf("%s is on %s, which this host shares with nobody; `mount --make-rshared %s` on the host would", m.Source, at, at)
	}
	return openTree(source)
}

// propagationOf finds in mountinfo where a mount is, and whether it is "shared" with others, hears of their mounts as a
// "master"'s slave, or neither.
func propagationOf(info *bufio.Scanner, id uint64) (at, peers string, err error) {
	for info.Scan() {
		fields := strings.Fields(info.Text())
		if len(fields) < 7 || fields[0] != strconv.FormatUint(id, 10) {
			continue
		}
		for _, optional := range fields[6:] {
			kind, _, _ := strings.Cut(optional, ":")
			if kind == "-" {
				break
			}
			if kind == "shared" || kind == "master" && peers == "" {
				peers = kind
			}
		}
		return fields[4], peers, nil
	}
	return "", "", errors.Join(fmt.Errorf("mount %d is not among those of this process", id), info.Err())
}

// attach puts the shared mounts into the container, which has been set up and waits.
func (k *keeper) attach() error {
	if len(k.shared) == 0 {
		return nil
	}
	proc := filepath.Join("/proc", strconv.Itoa(k.init.PID()), "ns")
	users, err := os.Open(filepath.Join(proc, "user"))
	if err != nil {
		return fmt.Errorf("open the container's user namespace: %w", err)
	}
	defer func() { _ = users.Close() }()
	for n, tree := range k.shared {
		m := k.wish.Mounts[n]
		if err := k.dress(tree, m, users); err != nil {
			return fmt.Errorf("mount at %s: %w", m.Target, err)
		}
	}
	mounts, err := os.Open(filepath.Join(proc, "mnt"))
	if err != nil {
		return fmt.Errorf("open the container's mount namespace: %w", err)
	}
	defer func() { _ = mounts.Close() }()
	return onThread(func() error { return k.attachIn(mounts) })
}

// onThread does something on a thread that is never used again: it ends with its goroutine. The process's first thread
// would not, and /proc/self is about that one.
func onThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- do()
			return
		}
		done <- onThread(do)
		runtime.UnlockOSThread()
	}()
	return <-done
}

// dress gives a shared mount the attributes that bindOptions gives to others.
func (k *keeper) dress(tree int, m driver.Mount, users *os.File) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if m.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if m.NoExec {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("set attributes: %w", err)
	}
	if !m.IDMapped || k.wish.IDs.Size == 0 || !k.mappable[m.Source] {
		return nil
	}
	attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	recursive := uint(0)
	if k.mappableTree[m.Source] {
		recursive = unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|recursive, &attr); err != nil {
		return fmt.Errorf("map ids: %w", err)
	}
	return nil
}

func (k *keeper) attachIn(mounts *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the shared working directory: %w", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the container's mount namespace: %w", err)
	}
	for n, tree := range k.shared {
		target := k.wish.Mounts[n].Target
		// The container's own links may lie on the way, as for every mount; they lead nowhere but into it.
		at, err := unix.Openat2(unix.AT_FDCWD, target, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != nil {
			return &os.PathError{Op: "open", Path: target, Err: err}
		}
		err = unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		_ = unix.Close(at)
		if err != nil {
			return fmt.Errorf("mount at %s: %w", target, err)
		}
	}
	return nil
}
