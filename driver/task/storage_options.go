package task

import "drover/driver"

// StorageConfig is an operator's part of: Mounts, devices, and whose the files are.
type StorageConfig struct {
	// RootFSOwner is the rootfs_owner of images whose job does not say; empty is OwnerImage.
	RootFSOwner string
}

func (c StorageConfig) validate() error { return validateOwner(c.RootFSOwner) }

// StorageWish is a job's part of the same.
type StorageWish struct {
	// RootFSOwner is OwnerImage, OwnerUser, or empty for the operator's choice.
	RootFSOwner string
}

func (w StorageWish) validate(Config) error { return validateOwner(w.RootFSOwner) }

// applyStorage puts into the container which files it sees.
func (f facts) applyStorage(c *driver.Container) error {
	c.RootFS.Owner = f.owner(*c)
	return nil
}
