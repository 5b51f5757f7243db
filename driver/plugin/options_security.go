package plugin

import "drover/driver/task"

// securityNodeOptions: how far tasks may go.
func securityNodeOptions() []Option {
	return []Option{
		{Name: "seccomp", Kind: String, Default: "default", Doc: "`default`, or `off` for hosts whose kernel cannot filter system calls"},
		{Name: "userns", Kind: Block, Doc: "the ids of containers on the host", Options: []Option{
			{Name: "host_base", Kind: Number, Default: "1073741824", Doc: "first id of the pool"},
			{Name: "size", Kind: Number, Default: "65536", Doc: "ids per allocation"},
			{Name: "count", Kind: Number, Default: "8192", Doc: "allocations at the same time"},
		}},
	}
}

type securityNode struct {
	Seccomp string       `codec:"seccomp"`
	UserNS  userNSConfig `codec:"userns"`
}

type userNSConfig struct {
	HostBase uint32 `codec:"host_base"`
	Size     uint32 `codec:"size"`
	Count    uint32 `codec:"count"`
}

func (c securityNode) into(n *task.Config) error {
	n.Seccomp = or(c.Seccomp, "default")
	n.IDs = task.IDs{
		HostBase: or(c.UserNS.HostBase, task.DefaultHostBase), Size: or(c.UserNS.Size, task.DefaultIDSize), Count: or(c.UserNS.Count, task.DefaultIDCount),
	}
	return nil
}

// securityOptions: what a task may do.
func securityOptions() []Option { return nil }

type securityTask struct{}

func (c securityTask) into(*task.Wish) error { return nil }
