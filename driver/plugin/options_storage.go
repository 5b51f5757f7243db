package plugin

import "drover/driver/task"

// storageNodeOptions: which of the host's files tasks may see.
func storageNodeOptions() []Option {
	return []Option{
		{Name: "allow_host_paths", Kind: Strings, Default: "none", Doc: "directories below which jobs may name paths of the host"},
	}
}

type storageNode struct {
	AllowHostPaths []string `codec:"allow_host_paths"`
}

func (c storageNode) into(n *task.Config) error {
	n.AllowHostPaths = c.AllowHostPaths
	return nil
}

// storageOptions: mounts, devices and disk.
func storageOptions() []Option {
	return []Option{
		{Name: "readonly_rootfs", Kind: Bool, Doc: "nothing may be written outside of mounts"},
	}
}

type storageTask struct {
	ReadOnlyRootFS bool `codec:"readonly_rootfs"`
}

func (c storageTask) into(w *task.Wish) error {
	w.ReadOnlyRootFS = c.ReadOnlyRootFS
	return nil
}
