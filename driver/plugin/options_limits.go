package plugin

import "drover/driver/task"

// limitsNodeOptions: how much a task may have.
func limitsNodeOptions() []Option {
	return []Option{
		{Name: "pids_limit", Kind: Number, Default: "1024", Doc: "processes of a task that does not say"},
		{Name: "max_pids_limit", Kind: Number, Default: "32768", Doc: "the most that a task may say"},
		{Name: "oom_score_adj", Kind: Number, Default: "0", Doc: "how early tasks die when the host's memory runs out, 0 to 1000; a task may only say more"},
	}
}

type limitsNode struct {
	PIDsLimit    int64 `codec:"pids_limit"`
	MaxPIDsLimit int64 `codec:"max_pids_limit"`
	OOMScoreAdj  int   `codec:"oom_score_adj"`
}

func (c limitsNode) into(n *task.Config) error {
	n.MaxPIDs = or(c.MaxPIDsLimit, task.DefaultMaxPIDs)
	n.PIDs = or(c.PIDsLimit, min(task.DefaultPIDs, n.MaxPIDs))
	n.Limit = task.LimitConfig{OOMScoreAdj: c.OOMScoreAdj}
	return nil
}

// limitsOptions: what a task asks for beside its resources block.
func limitsOptions() []Option {
	return []Option{
		{Name: "pids_limit", Kind: Number, Default: "the node's", Doc: "processes at the same time; at most the node's `max_pids_limit`"},
		{Name: "cpu_hard_limit", Kind: Bool, Doc: "hold the task to its share of the CPU also when there is more"},
		{Name: "cpu_cfs_period", Kind: Number, Default: "100000", Doc: "microseconds in which `cpu_hard_limit` counts, 1000 to 1000000"},
		{Name: "cpuset_cpus", Kind: String, Doc: "processors, such as `0-2,5`; not with `resources.cores`, which Nomad keeps for the task alone"},
		{Name: "memory_hard_limit", Kind: Number, Doc: "MB; the task's `memory` is a reservation then, and the larger of this and `memory_max` its limit"},
		{Name: "shm_size", Kind: String, Default: "64m", Doc: "size of `/dev/shm`, in bytes or with k, m, g; what is in it counts as the task's memory"},
		{Name: "oom_score_adj", Kind: Number, Default: "the node's", Doc: "how early the task dies when the host's memory runs out; at least the node's"},
		{Name: "ulimit", Kind: Pairs, Default: "nofile 16384, core 0", Doc: "limits of each process: a number or `SOFT:HARD`, -1 for none; at most what the agent may have itself"},
	}
}

type limitsTask struct {
	PIDsLimit    int64  `codec:"pids_limit"`
	CPUHardLimit bool   `codec:"cpu_hard_limit"`
	CPUCFSPeriod int64  `codec:"cpu_cfs_period"`
	CPUSetCPUs   string `codec:"cpuset_cpus"`
	MemoryHardMB int64  `codec:"memory_hard_limit"`
	ShmSize      string `codec:"shm_size"`
	OOMScoreAdj  int    `codec:"oom_score_adj"`
	Ulimit       pairs  `codec:"ulimit"`
}

func (c limitsTask) into(w *task.Wish) error {
	w.PIDsLimit, w.CPUHardLimit = c.PIDsLimit, c.CPUHardLimit
	w.Limit = task.LimitWish{
		Ulimits: c.Ulimit.merged(), ShmSize: c.ShmSize, OOMScoreAdj: c.OOMScoreAdj, CPUPeriod: c.CPUCFSPeriod, CPUSet: c.CPUSetCPUs,
		MemoryHardMB: c.MemoryHardMB,
	}
	return nil
}
