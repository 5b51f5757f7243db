package plugin

import "drover/driver/task"

// processOptions: what runs in the container, and as what it sees itself.
func processOptions() []Option {
	return []Option{
		{Name: "entrypoint", Kind: Strings, Default: "the image's", Doc: "as Docker's; dropping the image's command too"},
		{Name: "command", Kind: String, Default: "the image's", Doc: "as Docker's: takes the place of the image's CMD"},
		{Name: "args", Kind: Strings, Doc: "arguments of `command`, or in place of the image's CMD"},
		{Name: "work_dir", Kind: String, Default: "the image's, then /", Doc: "absolute path in the container"},
		{Name: "hostname", Kind: String, Default: "the allocation's first 8 characters", Doc: "host name inside"},
	}
}

type processTask struct {
	Entrypoint []string `codec:"entrypoint"`
	Command    string   `codec:"command"`
	Args       []string `codec:"args"`
	WorkDir    string   `codec:"work_dir"`
	Hostname   string   `codec:"hostname"`
}

func (c processTask) into(w *task.Wish) error {
	w.Entrypoint, w.Command, w.Args, w.WorkDir, w.Hostname = c.Entrypoint, c.Command, c.Args, c.WorkDir, c.Hostname
	return nil
}
