package task

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"drover/driver"
	"drover/driver/cdi"
)

// DeviceWish is a device that a job asks for.
type DeviceWish struct {
	// HostPath is a node in /dev, a directory of them, or the name of a device in the Container Device Interface.
	HostPath string
	// ContainerPath is HostPath when it is empty.
	ContainerPath string
	// Access is of r, w and m; empty for all.
	Access string
}

// nvidia is the variable by which Nomad's device plugin for NVIDIA names what a task was given, and what it means.
const (
	nvidiaEnv  = "NVIDIA_VISIBLE_DEVICES"
	nvidiaKind = "nvidia.com/gpu"
)

func (d DeviceWish) validate(node Config) error {
	if cdi.IsName(d.HostPath) {
		if d.ContainerPath != "" || d.Access != "" {
			return fmt.Errorf("devices: %s: container_path and cgroup_permissions are what its vendor's file says", d.HostPath)
		}
		return node.Storage.allowsDevice(d.HostPath)
	}
	target := orElse(d.ContainerPath, d.HostPath)
	switch {
	case path.Clean(d.HostPath) != d.HostPath || !strings.HasPrefix(d.HostPath, "/dev/"):
		return fmt.Errorf("devices: host_path %q must be a path below /dev without . or .. in it, or VENDOR/CLASS=NAME", d.HostPath)
	case strings.Trim(d.Access, "rwm") != "":
		return fmt.Errorf("devices: %s: cgroup_permissions %q must be made of r, w and m", d.HostPath, d.Access)
	case path.Clean(target) != target:
		return fmt.Errorf("devices: container_path %q must have no . or .. in it", target)
	}
	if err := (MountWish{Field: "devices", Target: target}).validateTarget(); err != nil {
		return err
	}
	return node.Storage.allowsDevice(d.HostPath)
}

// allowsDevice says whether a job may have a device of the host.
func (c StorageConfig) allowsDevice(device string) error {
	for _, pattern := range c.AllowDevices {
		if match, err := path.Match(pattern, device); err == nil && match {
			return nil
		}
	}
	if len(c.AllowDevices) == 0 {
		return fmt.Errorf("devices: %s: this node's operator allows no devices (plugin option allow_devices)", device)
	}
	return fmt.Errorf("devices: %s is not among this node's allow_devices: %s", device, strings.Join(c.AllowDevices, ", "))
}

func (c StorageConfig) validateDevices() error {
	var errs []error
	for _, pattern := range c.AllowDevices {
		if _, err := path.Match(pattern, ""); err != nil || !strings.HasPrefix(pattern, "/dev/") && !strings.Contains(pattern, "=") {
			errs = append(errs, fmt.Errorf("allow_devices: %q is neither a path below /dev nor VENDOR/CLASS=NAME, either with * in it", pattern))
		}
	}
	for _, dir := range c.CDIDirs {
		if !cleanAbsolute(dir) {
			errs = append(errs, fmt.Errorf("cdi_spec_dirs: %q must be an absolute path without . or .. in it", dir))
		}
	}
	return errors.Join(errs...)
}

// lookUpDevices asks the vendors' files about the devices that have one.
func (s *start) lookUpDevices() (err error) {
	var names []string
	for _, d := range s.facts.req.Wish.Storage.Devices {
		if cdi.IsName(d.HostPath) {
			names = append(names, d.HostPath)
		}
	}
	if given := s.facts.req.DeviceEnv[nvidiaEnv]; given != "" && given != "void" && given != "none" {
		for id := range strings.SplitSeq(given, ",") {
			names = append(names, nvidiaKind+"="+id)
		}
	}
	if s.facts.cdi, err = cdi.Find(s.m.node.Storage.CDIDirs, names); err != nil {
		err = fmt.Errorf("config: devices: %w (plugin option cdi_spec_dirs)", err)
	}
	return err
}

// applyDevices gives the container what Nomad's device plugins, the vendors' files and the job ask for.
func (f facts) applyDevices(c *driver.Container) {
	c.Devices = append(c.Devices, f.req.Devices...)
	for _, d := range f.req.Wish.Storage.Devices {
		if !cdi.IsName(d.HostPath) {
			c.Devices = append(c.Devices, driver.Device{
				Source: d.HostPath, Target: orElse(d.ContainerPath, d.HostPath), Access: orElse(d.Access, "rwm"),
			})
		}
	}
	c.Devices = append(c.Devices, f.cdi.Devices...)
	c.Mounts = append(c.Mounts, f.cdi.Mounts...)
	env := slices.Concat(envList(f.req.DeviceEnv), f.cdi.Env)
	if c.Work != nil {
		c.Work.Env = append(c.Work.Env, env...)
		return
	}
	c.Process.Env = append(c.Process.Env, env...)
}
