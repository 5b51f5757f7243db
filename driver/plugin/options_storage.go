package plugin

import (
	"fmt"
	"slices"

	"drover/driver/task"
)

// storageNodeOptions: which of the host's files tasks may see.
func storageNodeOptions() []Option {
	return []Option{
		{
			Name: "allow_host_paths", Kind: Strings, Default: "none",
			Doc: "directories below which jobs may name paths of the host; with `:ro` behind it for read-only mounts alone, with `:shared` for " +
				"mounts that may let mounts of the container out to the host",
		},
		{
			Name: "allow_devices", Kind: Strings, Default: "none",
			Doc: "devices that jobs may have: paths such as `/dev/fuse`, names such as `vendor.com/class=name`, either with `*` in it; what device " +
				"plugins give needs none of this",
		},
		{Name: "cdi_spec_dirs", Kind: Strings, Default: "/etc/cdi, /var/run/cdi", Doc: "directories of Container Device Interface files; the later one wins"},
		{Name: "rootfs_owner", Kind: String, Default: task.OwnerImage, Doc: "what `rootfs_owner` is for images whose job does not say"},
	}
}

type storageNode struct {
	AllowHostPaths []string `codec:"allow_host_paths"`
	AllowDevices   []string `codec:"allow_devices"`
	CDISpecDirs    []string `codec:"cdi_spec_dirs"`
	RootFSOwner    string   `codec:"rootfs_owner"`
}

func (c storageNode) into(n *task.Config) error {
	for _, entry := range c.AllowHostPaths {
		allowed := task.ParseHostPath(entry)
		n.AllowHostPaths = append(n.AllowHostPaths, allowed.Dir)
		n.Storage.HostPaths = append(n.Storage.HostPaths, allowed)
	}
	n.Storage.AllowDevices, n.Storage.CDIDirs = c.AllowDevices, c.CDISpecDirs
	if len(n.Storage.CDIDirs) == 0 {
		n.Storage.CDIDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
	n.Storage.RootFSOwner = c.RootFSOwner
	return nil
}

// storageOptions: mounts, devices and disk.
func storageOptions() []Option {
	return []Option{
		{
			Name: "readonly_rootfs", Kind: Bool,
			Doc: "nothing may be written outside of mounts, and of the directories that the image declares as its volumes",
		},
		{
			Name: "rootfs_owner", Kind: String, Default: "the plugin's",
			Doc: "`image`: files belong to whom the image says. `user`: those of the image's root belong to the task's user, who can change " +
				"them; in exchange those that the image gave to this user belong to root. By id-mapping, nothing is copied",
		},
		{Name: "mount", Kind: Blocks, Doc: "something to be mounted, as in the docker driver", Options: mountOptions()},
		{Name: "mounts", Kind: Blocks, Doc: "the same, written as a list", Options: mountOptions()},
		{
			Name: "volumes", Kind: Strings,
			Doc: "Docker's `source:target[:options]` with options `ro`, `rw` and the propagations; directories below the task's are made when missing",
		},
		{
			Name: "tmpfs", Kind: Strings,
			Doc: "`target[:options]` for file systems in memory, with options `size=64m`, `mode=1777`, `exec`, `ro`; they count as the task's memory",
		},
		{Name: "devices", Kind: Blocks, Doc: "devices of the host, as far as the operator's `allow_devices` permits", Options: []Option{
			{Name: "host_path", Kind: String, Doc: "a node in `/dev`, a directory of them, or a device's name `vendor.com/class=name`"},
			{Name: "container_path", Kind: String, Default: "host_path", Doc: "where it is in the container; everybody in there may use it"},
			{Name: "cgroup_permissions", Kind: String, Default: "rwm", Doc: "what for: read, write, make nodes"},
		}},
	}
}

func mountOptions() []Option {
	return []Option{
		{Name: "type", Kind: String, Doc: "`bind` or `tmpfs`"},
		{Name: "target", Kind: String, Doc: "absolute path in the container"},
		{
			Name: "source", Kind: String,
			Doc: "for `bind`: a path relative to the task's directory (`local/x`, `../alloc/data`), or an absolute one below `allow_host_paths`; " +
				"no link may be on the way",
		},
		{Name: "readonly", Kind: Bool, Doc: "with everything that is mounted below it"},
		{Name: "bind_options", Kind: Block, Doc: "for `bind`", Options: []Option{
			{Name: "propagation", Kind: String, Default: "rprivate", Doc: "`rprivate`; for absolute sources `rslave`, and `rshared` where the operator allows it"},
		}},
		{Name: "tmpfs_options", Kind: Block, Doc: "for `tmpfs`", Options: []Option{
			{Name: "size", Kind: Number, Default: "half of the task's memory", Doc: "bytes"},
			{Name: "mode", Kind: Number, Default: "1023 (1777 in octal)", Doc: "of its root directory, as a decimal number"},
		}},
	}
}

type storageTask struct {
	ReadOnlyRootFS bool         `codec:"readonly_rootfs"`
	RootFSOwner    string       `codec:"rootfs_owner"`
	Mount          []mountTask  `codec:"mount"`
	Mounts         []mountTask  `codec:"mounts"`
	Volumes        []string     `codec:"volumes"`
	Tmpfs          []string     `codec:"tmpfs"`
	Devices        []deviceTask `codec:"devices"`
}

type deviceTask struct {
	HostPath      string `codec:"host_path"`
	ContainerPath string `codec:"container_path"`
	Access        string `codec:"cgroup_permissions"`
}

type mountTask struct {
	Type     string    `codec:"type"`
	Target   string    `codec:"target"`
	Source   string    `codec:"source"`
	ReadOnly bool      `codec:"readonly"`
	Bind     mountBind `codec:"bind_options"`
	Tmpfs    mountMem  `codec:"tmpfs_options"`
}

type mountBind struct {
	Propagation string `codec:"propagation"`
}

type mountMem struct {
	Size int64 `codec:"size"`
	Mode int64 `codec:"mode"`
}

func (c storageTask) into(w *task.Wish) error {
	w.ReadOnlyRootFS = c.ReadOnlyRootFS
	w.Storage.RootFSOwner = c.RootFSOwner
	for _, m := range slices.Concat(c.Mount, c.Mounts) {
		wish, err := m.wish()
		if err != nil {
			return err
		}
		w.Storage.Mounts = append(w.Storage.Mounts, wish)
	}
	for _, d := range c.Devices {
		w.Storage.Devices = append(w.Storage.Devices, task.DeviceWish(d))
	}
	for _, parse := range []struct {
		list []string
		read func(string) (task.MountWish, error)
	}{{c.Volumes, task.ParseVolume}, {c.Tmpfs, task.ParseTmpfs}} {
		for _, text := range parse.list {
			m, err := parse.read(text)
			if err != nil {
				return err
			}
			w.Storage.Mounts = append(w.Storage.Mounts, m)
		}
	}
	return nil
}

func (m mountTask) wish() (task.MountWish, error) {
	if m.Tmpfs.Mode < 0 || m.Tmpfs.Mode > 0o7777 {
		return task.MountWish{}, fmt.Errorf("mount at %s: tmpfs_options.mode: %d is not between 0 and 4095, which is 7777 in octal", m.Target, m.Tmpfs.Mode)
	}
	return task.MountWish{
		Field: "mount", Type: m.Type, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly,
		Propagation: m.Bind.Propagation, SizeBytes: m.Tmpfs.Size, Mode: uint32(m.Tmpfs.Mode),
	}, nil
}
