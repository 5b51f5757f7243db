package plugin

import "drover/driver/task"

// limitsNodeOptions: how much a task may have.
func limitsNodeOptions() []Option {
	return []Option{
		{Name: "pids_limit", Kind: Number, Default: "1024", Doc: "processes of a task that does not say"},
		{Name: "max_pids_limit", Kind: Number, Default: "32768", Doc: "the most that a task may say"},
	}
}

type limitsNode struct {
	PIDsLimit    int64 `codec:"pids_limit"`
	MaxPIDsLimit int64 `codec:"max_pids_limit"`
}

func (c limitsNode) into(n *task.Config) error {
	n.MaxPIDs = or(c.MaxPIDsLimit, task.DefaultMaxPIDs)
	n.PIDs = or(c.PIDsLimit, min(task.DefaultPIDs, n.MaxPIDs))
	return nil
}

// limitsOptions: what a task asks for beside its resources block.
func limitsOptions() []Option {
	return []Option{
		{Name: "pids_limit", Kind: Number, Default: "the node's", Doc: "processes at the same time; at most the node's `max_pids_limit`"},
		{Name: "cpu_hard_limit", Kind: Bool, Doc: "hold the task to its share of the CPU also when there is more"},
	}
}

type limitsTask struct {
	PIDsLimit    int64 `codec:"pids_limit"`
	CPUHardLimit bool  `codec:"cpu_hard_limit"`
}

func (c limitsTask) into(w *task.Wish) error {
	w.PIDsLimit, w.CPUHardLimit = c.PIDsLimit, c.CPUHardLimit
	return nil
}
