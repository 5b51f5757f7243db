package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/rootfs"
	"drover/driver/runc"
)

// lookUpOwner asks the image's own accounts who its files are to belong to. They can be in any of its layers, behind
// links, or hidden by an upper one; so the image is mounted for the question, by itself.
func (k *keeper) lookUpOwner() (err error) {
	owner := k.wish.RootFS.Owner
	if owner == nil {
		return nil
	}
	dir := filepath.Join(string(k.dir), "owner")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make place for a look at the image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	target, err := rootfs.Mount(driver.RootFS{Layers: k.wish.RootFS.Layers}, k.wish.IDs, dir)
	if err != nil {
		return fmt.Errorf("mount image: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(target, unix.UMOUNT_NOFOLLOW)) }()
	image, err := runc.OpenRootfs(target)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	found, err := image.User(owner.User)
	owner.UID, owner.GID = found.UID, found.GID
	return err
}
