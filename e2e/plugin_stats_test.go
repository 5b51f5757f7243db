//go:build e2e

package e2e_test

import (
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// TestPlugin_stats wants true numbers, one set for each interval, and an end of the stream with the task's.
func TestPlugin_stats(t *testing.T) {
	n := plugin.Start(t, plugin.Options{})
	image := drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap"})
	ref := drivertest.Push(t, n.Registry, "team/probe:1", image)
	task := n.Task(t, `image = "`+ref+`"
args = ["then", "--", "mem", "30", "--", "sleep", "600"]`)
	task.Start(t)
	stats, err := n.TaskStats(t.Context(), task.Config.ID, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	next := func() *drivers.TaskResourceUsage {
		t.Helper()
		select {
		case u := <-stats:
			return u
		case <-time.After(20 * time.Second):
			t.Fatal("no stats come")
			return nil
		}
	}
	first := next()
	memory, cpu := first.ResourceUsage.MemoryStats, first.ResourceUsage.CpuStats
	for u := first; memory.RSS < 1<<20; u = next() {
		memory, cpu = u.ResourceUsage.MemoryStats, u.ResourceUsage.CpuStats
	}
	if memory.Usage < memory.RSS || memory.MaxUsage < memory.Usage || len(memory.Measured) != 5 || len(cpu.Measured) != 5 {
		t.Errorf("memory %+v, cpu %+v", memory, cpu)
	}
	if second := next(); second.Timestamp <= first.Timestamp {
		t.Errorf("the second reading is of %d, the first of %d", second.Timestamp, first.Timestamp)
	}
	if err := n.StopTask(task.Config.ID, time.Second, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	ended := time.After(20 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-stats:
		case <-ended:
			t.Fatal("the stream goes on when the task has ended")
		}
	}
	// Asked again, of a task that has ended, the stream is empty.
	if stats, err = n.TaskStats(t.Context(), task.Config.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	if u, open := <-stats; open {
		t.Errorf("a task that has ended uses %+v", u)
	}
}
