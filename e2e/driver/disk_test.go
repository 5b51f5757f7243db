//go:build e2e

package driver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	"golang.org/x/sys/unix"

	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// TestDisk: what tasks write is limited, by the way that the node says it has.
func TestDisk(t *testing.T) {
	n := start(t, plugin.Options{Config: "disk {\n  default = \"24M\"\n  max = \"64M\"\n}"})
	f := n.AwaitHealth(t, drivers.HealthStateHealthy)
	way, _ := f.Attributes["driver.drover.quota"].GetString()
	if preset, _ := f.Attributes["driver.drover.quota.default"].GetString(); preset != "24M" || way != "measured" && way != "project" {
		t.Errorf("the node says %q, %q", way, preset)
	}
	neighbour := n.Task(t, n.probe("", "sleep", "600"))
	neighbour.Start(t)
	for _, c := range []struct {
		name, options, said string
		args                []string
	}{
		{"the node's default", "", "24 MiB", []string{"fill", "/tmp/f", "60"}},
		{"the task's limit", `storage_opt = [{ size = "16M" }]`, "16 MiB", []string{"fill", "/tmp/f", "60"}},
		{"in /local", `storage_opt = [{ size = "16M" }]`, "16 MiB", []string{"fill", "/local/f", "60"}},
		{"a million files", `storage_opt = [{ inodes = "20000" }]`, "20000 files", []string{"litter", "/tmp/d", "1000000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := n.Task(t, n.probe(c.options, append(append([]string{"then", "--"}, c.args...), "--", "sleep", "600")...))
			exit := task.Run(t)
			if way == "project" && !strings.Contains(c.args[1], "local") {
				contains(t, task.Stderr(), "quota exceeded")
				return
			}
			if exit.ExitCode != 137 || exit.Err == nil {
				t.Fatalf("%+v, %s", exit, task.Stderr())
			}
			contains(t, exit.Err.Error(), "disk quota exceeded: used ", " of "+c.said)
			var told []string
			for _, event := range n.Events(task.Config.ID) {
				told = append(told, event.Message)
			}
			contains(t, strings.Join(told, "\n"), "Disk quota exceeded: used ", " of "+c.said, "the task is killed")
		})
	}
	t.Run("says no by name", func(t *testing.T) {
		for options, says := range map[string]string{
			`storage_opt = [{ size = "-1" }]`: "storage_opt.size", `storage_opt = [{ size = "0" }]`: "storage_opt.size",
			`storage_opt = [{ size = "65M" }]`: "disk.max", `storage_opt = [{ size = "18446744073709551616" }]`: "storage_opt.size",
			`storage_opt = [{ inodes = "-5" }]`: "storage_opt.inodes",
		} {
			contains(t, n.refused(t, n.probe(options, "id")), says)
		}
		contains(t, n.refused(t, n.probe(`storage_opt = [{ "overlay2.size" = "1G" }]`, "id")), "storage_opt.overlay2.size")
	})
	if status, err := n.InspectTask(neighbour.Config.ID); err != nil || status.State != drivers.TaskStateRunning {
		t.Errorf("the neighbour: %+v, %v", status, err)
	}
}

// TestDisk_full: on a node whose disk is full running tasks get the kernel's error, new ones a cause that is worth
// another try, and nothing of them stays; once there is room again all is well.
func TestDisk_full(t *testing.T) {
	disk := drivertest.FileSystem(t, "ext4", "", "mke2fs", "-q", "-t", "ext4", "-F", "-m", "0")
	if err := os.Chmod(disk, 0o711); err != nil {
		t.Fatal(err)
	}
	n := start(t, plugin.Options{StateDir: filepath.Join(disk, "state"), Config: "disk {\n  default = \"unlimited\"\n}"})
	// Where the disk is slow, what waits to be written is most of what the task writes; it is not to die of that.
	roomy := func(c *drivers.TaskConfig) { c.Resources.NomadResources.Memory.MemoryMaxMB = 1024 }
	greedy, neighbour := n.Task(t, n.probe("", "then", "--", "fill", "/tmp/f", "600"), roomy), n.Task(t, n.probe("", "trap", "600"))
	neighbour.Start(t)
	greedy.Start(t)
	if exit := greedy.Wait(t); exit.ExitCode == 0 || exit.ExitCode == 137 {
		t.Errorf("the greedy task: %+v", exit)
	}
	contains(t, greedy.Stderr(), "no space left on device")
	stuff(t, disk)
	late := n.Task(t, n.probe("", "id"))
	err := late.TryStart()
	if err == nil || !structs.IsRecoverable(err) || !strings.Contains(err.Error(), "the file system of state_dir is full") {
		t.Errorf("a task on a full node: %v", err)
	}
	if status, err := n.InspectTask(neighbour.Config.ID); err != nil || status.State != drivers.TaskStateRunning {
		t.Errorf("the neighbour: %+v, %v", status, err)
	}
	if err := os.RemoveAll(filepath.Join(disk, "stuffed")); err != nil {
		t.Fatal(err)
	}
	if err := n.DestroyTask(greedy.Config.ID, true); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(disk, "state", "tasks", "*")); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, errors.Join(err))
	}
	if exit := n.Task(t, n.probe("", "id")).Run(t); exit.ExitCode != 0 {
		t.Errorf("a task after that: %+v", exit)
	}
}

// stuff uses up what a full file system keeps for its administrator.
func stuff(t *testing.T, disk string) {
	t.Helper()
	dir := filepath.Join(disk, "stuffed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range 1 << 20 {
		err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), make([]byte, 4096), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
