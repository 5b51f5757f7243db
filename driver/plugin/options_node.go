package plugin

import (
	"os"
	"os/exec"
	"path/filepath"

	"drover/driver/task"
)

func nodeOptions() []Option {
	return []Option{
		{Name: "enabled", Kind: Bool, Default: "true", Doc: "false takes the driver off this node"},
		{Name: "state_dir", Kind: String, Default: task.DefaultStateDir, Doc: "one directory per running task; root only"},
		{Name: "shim", Kind: String, Default: "beside the plugin, then PATH", Doc: "path of `drover-shim`"},
		{Name: "orphan_grace", Kind: String, Default: "5m", Doc: "after how long a container that Nomad does not ask for is removed, if its allocation is gone or the host was restarted"},
		{Name: "default_user", Kind: String, Default: "the image's USER", Doc: "who runs images and stacks when the job does not say"},
	}
}

type nodeConfig struct {
	Enabled     bool   `codec:"enabled"`
	StateDir    string `codec:"state_dir"`
	Shim        string `codec:"shim"`
	OrphanGrace string `codec:"orphan_grace"`
	DefaultUser string `codec:"default_user"`
}

func (c nodeConfig) into(n *task.Config) (err error) {
	n.StateDir = or(c.StateDir, task.DefaultStateDir)
	n.Shim = or(c.Shim, findShim())
	n.DefaultUser = c.DefaultUser
	n.OrphanGrace, err = duration("orphan_grace", c.OrphanGrace, task.DefaultOrphanGrace)
	return err
}

// shimName is the program that keeps a task; it is looked for beside the plugin, then on the PATH.
const shimName = "drover-shim"

func findShim() string {
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), shimName)
			if _, err := os.Stat(beside); err == nil {
				return beside
			}
		}
	}
	if found, err := exec.LookPath(shimName); err == nil {
		return found
	}
	return ""
}

func or[T comparable](value, other T) T {
	var zero T
	if value == zero {
		return other
	}
	return value
}
