//go:build e2e

package e2e_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// TestPlugin_forgotten is about tasks that a new plugin finds and nobody asks for, and about those that a reboot ended.
func TestPlugin_forgotten(t *testing.T) {
	n := plugin.Start(t, plugin.Options{Config: `orphan_grace = "1s"`})
	ref := drivertest.Push(t, n.Registry, "team/probe:1", drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap"}))
	start := func() (*plugin.Task, int) {
		t.Helper()
		task := n.Task(t, `image = "`+ref+`"
args = ["sleep", "600"]`)
		task.Start(t)
		return task, identity(t, stateDir(t, n, task), "init.json").PID
	}
	gone, gonePID := start()
	kept, keptPID := start()
	rebooted, rebootedPID := start()

	t.Run("a running task that a plugin does not know is not destroyed without force", func(t *testing.T) {
		n.Kill(t)
		n.Launch(t)
		if err := n.DestroyTask(kept.Config.ID, false); err == nil || !strings.Contains(err.Error(), "still runs") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("and one that it does know neither", func(t *testing.T) {
		if err := n.RecoverTask(kept.Handle); err != nil {
			t.Fatal(err)
		}
		if err := n.DestroyTask(kept.Config.ID, false); err == nil || !strings.Contains(err.Error(), "still runs") {
			t.Errorf("error %v", err)
		}
	})

	n.Kill(t)
	dirs := map[*plugin.Task]string{gone: stateDir(t, n, gone), kept: stateDir(t, n, kept), rebooted: stateDir(t, n, rebooted)}
	reboot(t, dirs[rebooted], rebootedPID)
	if err := os.Rename(gone.Config.AllocDir, gone.Config.AllocDir+".collected"); err != nil {
		t.Fatal(err)
	}
	n.Launch(t)
	t.Run("a task that ran before a reboot is not there to be recovered", func(t *testing.T) {
		if err := n.RecoverTask(rebooted.Handle); !errors.Is(err, drivers.ErrTaskNotFound) && (err == nil || !strings.Contains(err.Error(), drivers.ErrTaskNotFound.Error())) {
			t.Errorf("error %v", err)
		}
	})
	for name, task := range map[string]*plugin.Task{"what a reboot ended is removed": rebooted, "what runs for an allocation that is gone is ended": gone} {
		t.Run(name, func(t *testing.T) {
			eventually(t, 30*time.Second, "its directory is still there", func() (bool, string) {
				_, err := os.Stat(dirs[task])
				return errors.Is(err, fs.ErrNotExist), dirs[task]
			})
		})
	}
	if runs(gonePID) {
		t.Error("the container of an allocation that is gone still runs")
	}
	t.Run("what runs for an allocation that is there goes on, and can be recovered late", func(t *testing.T) {
		eventually(t, 30*time.Second, "it is not named in the log", func() (bool, string) {
			return strings.Contains(n.Log(), "a container is left that nobody asks for"), n.Log()
		})
		if err := n.RecoverTask(kept.Handle); err != nil {
			t.Fatal(err)
		}
		status, err := n.InspectTask(kept.Config.ID)
		if err != nil || status.State != drivers.TaskStateRunning || !runs(keptPID) {
			t.Errorf("status %+v, error %v", status, err)
		}
	})
}

// runs reports whether a process runs; one that was not reaped yet does not.
func runs(pid int) bool {
	_, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	return err == nil
}

// stateDir is where the plugin keeps a task.
func stateDir(t *testing.T, n *plugin.Node, task *plugin.Task) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(n.Dir, "state/tasks/t-"+task.Config.AllocID[:8]+"*")) // the pattern is good
	if len(found) != 1 {
		t.Fatalf("%d directories of task %s", len(found), task.Config.ID)
	}
	return found[0]
}

// process is how a state directory names one.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
	Exe   string `json:"exe,omitempty"`
}

func identity(t *testing.T, dir, name string) process {
	t.Helper()
	var p process
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reboot ends a task as the end of the host does, without a word, and makes it one of another boot.
func reboot(t *testing.T, dir string, init int) {
	t.Helper()
	for name, pid := range map[string]int{"shim.json": identity(t, dir, "shim.json").PID, "init.json": init} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		id := identity(t, dir, name)
		id.Boot = "00000000-0000-0000-0000-000000000000"
		raw, err := json.Marshal(id)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Remove(filepath.Join(dir, "exit.json")) // if the shim was the second to be killed
}
