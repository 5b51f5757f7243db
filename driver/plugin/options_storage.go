package plugin

import "drover/driver/task"

// storageNodeOptions: which of the host's files tasks may see.
func storageNodeOptions() []Option {
	return []Option{
		{Name: "allow_host_paths", Kind: Strings, Default: "none", Doc: "directories below which jobs may name paths of the host"},
		{Name: "rootfs_owner", Kind: String, Default: task.OwnerImage, Doc: "what `rootfs_owner` is for images whose job does not say"},
	}
}

type storageNode struct {
	AllowHostPaths []string `codec:"allow_host_paths"`
	RootFSOwner    string   `codec:"rootfs_owner"`
}

func (c storageNode) into(n *task.Config) error {
	n.AllowHostPaths = c.AllowHostPaths
	n.Storage.RootFSOwner = c.RootFSOwner
	return nil
}

// storageOptions: mounts, devices and disk.
func storageOptions() []Option {
	return []Option{
		{Name: "readonly_rootfs", Kind: Bool, Doc: "nothing may be written outside of mounts"},
		{
			Name: "rootfs_owner", Kind: String, Default: "the plugin's",
			Doc: "`image`: files belong to whom the image says. `user`: those of the image's root belong to the task's user, who can change " +
				"them; in exchange those that the image gave to this user belong to root. By id-mapping, nothing is copied",
		},
	}
}

type storageTask struct {
	ReadOnlyRootFS bool   `codec:"readonly_rootfs"`
	RootFSOwner    string `codec:"rootfs_owner"`
}

func (c storageTask) into(w *task.Wish) error {
	w.ReadOnlyRootFS = c.ReadOnlyRootFS
	w.Storage.RootFSOwner = c.RootFSOwner
	return nil
}
