package plugin

import (
	"errors"

	"drover/driver/task"
)

// processNodeOptions: what becomes of a task's output, and what it is called.
func processNodeOptions() []Option {
	return []Option{
		{Name: "logging", Kind: Block, Doc: "for tasks that do not say; its options are those of a task's `logging`", Options: loggingOptions()},
		{Name: "log_patience", Kind: String, Default: "30s", Doc: "how long a full log may be without a reader before output is dropped, and counted; `0s` lets the task wait for ever"},
		{Name: "extra_labels", Kind: Strings, Default: "none", Doc: "labels for all tasks, by patterns: `job_name`, `job_id`, `task_group_name`, `task_name`, `namespace`, `node_name`, `node_id`, `short_alloc_id`, `*`"},
	}
}

func loggingOptions() []Option {
	return []Option{
		{Name: "type", Kind: String, Default: "nomad", Doc: "`nomad`, or `none` to throw output away"},
		{Name: "driver", Kind: String, Doc: "the older name of `type`"},
		{Name: "config", Kind: Pairs, Doc: "`rate_limit`: bytes per second on both streams together, such as `1MiB`; whole lines above it are dropped, and that is said; -1 is no limit"},
	}
}

type processNode struct {
	Logging     loggingConfig `codec:"logging"`
	LogPatience string        `codec:"log_patience"`
	ExtraLabels []string      `codec:"extra_labels"`
}

type loggingConfig struct {
	Type   string `codec:"type"`
	Driver string `codec:"driver"`
	Config pairs  `codec:"config"`
}

func (c loggingConfig) wish() (task.LoggingWish, error) {
	if c.Type != "" && c.Driver != "" && c.Type != c.Driver {
		return task.LoggingWish{}, errors.New("logging: type and driver are the same option; give type")
	}
	return task.LoggingWish{Type: or(c.Type, c.Driver), Config: c.Config.merged()}, nil
}

func (c processNode) into(n *task.Config) (err error) {
	n.Process.ExtraLabels = c.ExtraLabels
	if n.Process.LogPatience, err = duration("log_patience", c.LogPatience, task.DefaultLogPatience); err != nil {
		return err
	}
	n.Process.Logging, err = c.Logging.wish()
	return err
}

// processOptions: what runs in the container, and as what it sees itself.
func processOptions() []Option {
	return []Option{
		{Name: "entrypoint", Kind: Strings, Default: "the image's", Doc: "as Docker's; dropping the image's command too"},
		{Name: "command", Kind: String, Default: "the image's", Doc: "as Docker's: takes the place of the image's CMD"},
		{Name: "args", Kind: Strings, Doc: "arguments of `command`, or in place of the image's CMD"},
		{Name: "work_dir", Kind: String, Default: "the image's, then /", Doc: "absolute path in the container; made, and root's, when it is missing"},
		{Name: "hostname", Kind: String, Default: "the allocation's first 8 characters", Doc: "host name inside"},
		{Name: "init", Kind: Bool, Doc: "a process 1 that reaps and passes signals on, with the command as its child; droplets always have one"},
		{Name: "tty", Kind: Bool, Doc: "a terminal for the command, whose output goes to the log; it hangs up when the task's shim is killed"},
		{Name: "interactive", Kind: Bool, Doc: "standard input stays open; nobody writes to it (use `nomad alloc exec`)"},
		{Name: "labels", Kind: Pairs, Doc: "kept with the task, and shown among its driver attributes; not for secrets"},
		{Name: "logging", Kind: Block, Default: "the node's", Doc: "what becomes of the task's output", Options: loggingOptions()},
	}
}

type processTask struct {
	Entrypoint  []string      `codec:"entrypoint"`
	Command     string        `codec:"command"`
	Args        []string      `codec:"args"`
	WorkDir     string        `codec:"work_dir"`
	Hostname    string        `codec:"hostname"`
	Init        bool          `codec:"init"`
	TTY         bool          `codec:"tty"`
	Interactive bool          `codec:"interactive"`
	Labels      pairs         `codec:"labels"`
	Logging     loggingConfig `codec:"logging"`
}

func (c processTask) into(w *task.Wish) error {
	w.Entrypoint, w.Command, w.Args, w.WorkDir, w.Hostname = c.Entrypoint, c.Command, c.Args, c.WorkDir, c.Hostname
	logging, err := c.Logging.wish()
	w.Process = task.ProcessWish{Init: c.Init, TTY: c.TTY, Interactive: c.Interactive, Labels: c.Labels.merged(), Logging: logging}
	return err
}
