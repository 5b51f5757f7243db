package rootfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// Support is what a host's kernel and file system can do for root file systems.
type Support struct {
	// IDMap: mounts can map ids. Overlay: the kernel has overlayfs.
	IDMap, Overlay bool
}

// Probe tries what Mount needs on the file system of dir, which must exist. It leaves no mount anywhere.
func Probe(dir string) (Support, error) {
	var support Support
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err == nil {
		support.Overlay = true
		_ = unix.Close(fd)
	} else if !errors.Is(err, unix.ENODEV) {
		return support, fmt.Errorf("probe overlay: %w", err)
	}
	support.IDMap, err = canMap(dir, 0)
	return support, err
}

// CanMapTree says whether the ids of a path can be mapped, with all that is mounted below it.
func CanMapTree(path string) (bool, error) { return canMap(path, unix.AT_RECURSIVE) }

func canMap(path string, recursive uint) (bool, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
	if err != nil {
		return false, fmt.Errorf("probe id-mapped mounts on %s: %w", path, err)
	}
	defer func() { _ = unix.Close(tree) }()
	maps := &idMaps{}
	defer maps.close()
	userns, err := maps.get(idMap{from: driver.IDRange{Host: 0, Size: 1}, to: driver.IDRange{Host: 1 << 30, Size: 1}})
	if err != nil {
		return false, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|recursive, &attr) == nil, nil
}
