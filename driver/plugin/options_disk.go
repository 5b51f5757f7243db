package plugin

import "drover/driver/task"

// diskNodeOptions: how much a task may write to the host's disks.
func diskNodeOptions() []Option {
	return []Option{
		{Name: "disk", Kind: Block, Doc: "how much tasks may write to their root file system and to `/local`", Options: []Option{
			{Name: "default", Kind: String, Default: task.DefaultDisk, Doc: "a task that does not say; `unlimited` for no limit"},
			{Name: "max", Kind: String, Default: task.DefaultMaxDisk, Doc: "the most that a task may say; `unlimited` for no limit"},
			{Name: "inodes", Kind: Number, Default: "1000000", Doc: "files and directories of a task that does not say, and the most that it may say; Cloud Foundry's work may have 200000 unless this is set"},
			{Name: "scope", Kind: String, Default: "exclusive", Doc: "`exclusive` counts what the task writes, `total` the image too; Cloud Foundry's work counts images and droplets, but not stacks, unless this is set"},
			{Name: "project_id_base", Kind: Number, Default: "1073741824", Doc: "first of the 65536 project ids that tasks have on file systems with project quotas; nobody else may use them"},
		}},
	}
}

type diskNode struct {
	Disk diskConfig `codec:"disk"`
}

type diskConfig struct {
	Default       string `codec:"default"`
	Max           string `codec:"max"`
	Inodes        int64  `codec:"inodes"`
	Scope         string `codec:"scope"`
	ProjectIDBase int64  `codec:"project_id_base"`
}

func (c diskNode) into(n *task.Config) error {
	n.Disk = task.DiskConfig{
		Default: or(c.Disk.Default, task.DefaultDisk), Max: or(c.Disk.Max, task.DefaultMaxDisk), Inodes: c.Disk.Inodes,
		Scope: c.Disk.Scope, ProjectBase: or(c.Disk.ProjectIDBase, task.DefaultProjectBase),
	}
	return nil
}

// diskOptions: how much this task may write.
func diskOptions() []Option {
	return []Option{
		{Name: "storage_opt", Kind: Pairs, Default: "the node's", Doc: "`size` (such as `10G`) and `inodes`: how much the task may write to its root file system and to `/local`; at most the node's `disk.max` and `disk.inodes`"},
	}
}

type diskTask struct {
	StorageOpt pairs `codec:"storage_opt"`
}

func (c diskTask) into(w *task.Wish) error {
	w.Disk.Options = c.StorageOpt.merged()
	return nil
}
