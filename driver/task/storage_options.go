package task

import (
	"errors"
	"fmt"
	"strings"

	"drover/driver"
)

// StorageConfig is an operator's part of: Mounts, devices, and whose the files are.
type StorageConfig struct {
	// RootFSOwner is the rootfs_owner of images whose job does not say; empty is OwnerImage.
	RootFSOwner string
	// HostPaths are Config.AllowHostPaths with what may be done there.
	HostPaths []HostPath
	// AllowDevices are patterns of paths and names of devices that jobs may have.
	AllowDevices []string
	// CDIDirs hold the vendors' files about devices.
	CDIDirs []string
}

func (c StorageConfig) validate() error {
	errs := []error{validateOwner(c.RootFSOwner), c.validateDevices()}
	for _, p := range c.HostPaths {
		if strings.Contains(p.Dir, ":") {
			errs = append(errs, fmt.Errorf("allow_host_paths: %q: nothing but :ro or :shared may stand behind a directory", p.Dir))
		}
	}
	return errors.Join(errs...)
}

// StorageWish is a job's part of the same.
type StorageWish struct {
	// RootFSOwner is OwnerImage, OwnerUser, or empty for the operator's choice.
	RootFSOwner string
	Mounts      []MountWish
	Devices     []DeviceWish
}

// maxMounts bounds what one job may ask for.
const maxMounts = 256

func (w StorageWish) validate(node Config) error {
	errs := []error{validateOwner(w.RootFSOwner)}
	if len(w.Mounts) > maxMounts {
		return fmt.Errorf("mount: %d of them are more than %d", len(w.Mounts), maxMounts)
	}
	for _, m := range w.Mounts {
		errs = append(errs, m.validate(node))
	}
	if len(w.Devices) > maxMounts {
		return fmt.Errorf("devices: %d of them are more than %d", len(w.Devices), maxMounts)
	}
	for _, d := range w.Devices {
		errs = append(errs, d.validate(node))
	}
	return errors.Join(errs...)
}

// applyStorage puts into the container which files it sees.
func (f facts) applyStorage(c *driver.Container) error {
	c.RootFS.Owner = f.owner(*c)
	for _, m := range f.req.Wish.Storage.Mounts {
		c.Mounts = append(c.Mounts, f.mount(m))
	}
	f.applyDevices(c)
	// First, since others may be mounted inside of them.
	c.Mounts = append(f.imageVolumes(c.Mounts), c.Mounts...)
	return nil
}
