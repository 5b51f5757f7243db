//go:build e2e

package driver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/e2e/plugin"
)

func TestLimits(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("32 ulimit", func(t *testing.T) {
		got := n.output(t, n.probe("ulimit {\n msgqueue = \"100:200\"\n}", "limit", "Max msgqueue size"))
		contains(t, strings.Join(strings.Fields(got), " "), "Max msgqueue size 100 200")
		for option, word := range map[string]string{
			"ulimit {\n nofiles = \"1\"\n}": "nofiles", "ulimit {\n nofile = \"many\"\n}": "nofile", "ulimit {\n nofile = \"200:100\"\n}": "nofile",
		} {
			contains(t, n.refused(t, n.probe(option, "id")), "ulimit", word)
		}
	})
	t.Run("32 sysctl", func(t *testing.T) {
		contains(t, n.output(t, n.probe("sysctl = {\n \"fs.mqueue.msg_max\" = \"17\"\n}", "cat", "/proc/sys/fs/mqueue/msg_max")), "17")
		contains(t, n.refused(t, n.probe("sysctl = {\n \"vm.swappiness\" = \"1\"\n}", "id")), "sysctl", "vm.swappiness")
	})
	t.Run("34 memory", func(t *testing.T) {
		for _, row := range []struct {
			max  int64
			mb   string
			fits bool
		}{{0, "40", true}, {0, "100", false}, {160, "100", true}, {160, "250", false}, {-1, "250", true}} {
			task := n.Task(t, n.probe("", "mem", row.mb), func(c *drivers.TaskConfig) { c.Resources.NomadResources.Memory.MemoryMaxMB = row.max })
			task.Start(t)
			if row.fits {
				ready(t, task, "allocated")
			} else if exit := task.Wait(t); !exit.OOMKilled {
				t.Errorf("%s MB with memory_max %d: %+v", row.mb, row.max, exit)
			}
		}
	})
	t.Run("35 shares are clamped", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"), func(c *drivers.TaskConfig) { c.Resources.LinuxResources.CPUShares = 1 << 40 })
		task.Start(t)
		if got := control(t, task, "cpu.shares", "cpu.weight"); got != "262144" && got != "10000" {
			t.Errorf("shares are %s", got)
		}
	})
	t.Run("35 a hard limit", func(t *testing.T) {
		task := n.Task(t, n.probe("cpu_hard_limit = true", "trap", "600"), func(c *drivers.TaskConfig) { c.Resources.LinuxResources.PercentTicks = 0.1 })
		task.Start(t)
		want := fmt.Sprint(10000 * cpus(t))
		if got, _, _ := strings.Cut(control(t, task, "cpu.cfs_quota_us", "cpu.max"), " "); got != want {
			t.Errorf("quota is %s, want %s", got, want)
		}
	})
	t.Run("35 some processors", func(t *testing.T) {
		contains(t, n.output(t, n.probe(`cpuset_cpus = "0"`, "status", "Cpus_allowed_list")), "\t0\n")
	})
	t.Run("35 reserved cores", func(t *testing.T) {
		task := n.Task(t, n.probe("", "status", "Cpus_allowed_list"))
		task.Reserve(t, "0")
		task.Run(t)
		contains(t, task.Stdout(), "\t0\n")
	})
	t.Run("36 oom_score_adj", func(t *testing.T) {
		own := fmt.Sprintf("/proc/%d/oom_score_adj", n.PID())
		if err := os.WriteFile(own, []byte("300"), 0); err != nil {
			t.Fatal(err)
		}
		if got := n.output(t, n.probe("", "cat", "/proc/self/oom_score_adj")); got != "0\n" {
			t.Errorf("oom_score_adj is %s", got)
		}
	})
	t.Run("60 labels", func(t *testing.T) {
		task := n.Task(t, n.probe("labels {\n team = \"blue\"\n}", "trap", "600"))
		task.Start(t)
		status, err := n.InspectTask(task.Config.ID)
		if err != nil {
			t.Fatal(err)
		}
		contains(t, fmt.Sprint(status.DriverAttributes), "team:blue")
	})
}

// control reads a file of the task's cgroup, by its name in version 1 or 2.
func control(t *testing.T, task *plugin.Task, names ...string) string {
	t.Helper()
	for _, dir := range task.Cgroups() {
		for _, name := range names {
			if raw, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				return strings.TrimSpace(string(raw))
			}
		}
	}
	t.Fatalf("no cgroup of the task has %v", names)
	return ""
}

// cpus counts the node's processors.
func cpus(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(raw), "processor\t")
}
