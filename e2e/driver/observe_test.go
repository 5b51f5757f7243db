//go:build e2e

package driver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/e2e/plugin"
)

func TestObserve(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("54 statistics", func(t *testing.T) { checkStats(t, n) })
	t.Run("55 both streams", func(t *testing.T) {
		task := n.Task(t, n.probe("", "then", "--", "echo", "to out", "--", "err", "to err"))
		task.Run(t)
		if task.Stdout() != "to out\n" || task.Stderr() != "to err\n" {
			t.Errorf("stdout %q, stderr %q", task.Stdout(), task.Stderr())
		}
	})
	t.Run("55 no logs", func(t *testing.T) {
		task := n.Task(t, n.probe("", "echo", "to nobody"), func(c *drivers.TaskConfig) { c.StdoutPath, c.StderrPath = "/dev/null", "/dev/null" })
		if exit := task.Run(t); exit.ExitCode != 0 {
			t.Errorf("%+v", exit)
		}
	})
	t.Run("55 after the plugin died", func(t *testing.T) {
		task := n.Task(t, n.probe("", "then", "--", "echo", "before", "--", "sleep", "1", "--", "echo", "after"))
		task.Start(t)
		n.Kill(t)
		n.Launch(t)
		if err := n.RecoverTask(task.Handle); err != nil {
			t.Fatal(err)
		}
		task.Wait(t)
		if task.Stdout() != "before\nafter\n" {
			t.Errorf("stdout %q", task.Stdout())
		}
	})
	t.Run("55 after logmon died", func(t *testing.T) {
		task := n.Task(t, n.probe("", "then", "--", "echo", "before", "--", "sleep", "1", "--", "echo", "after"))
		task.Start(t)
		ready(t, task, "before")
		task.Relisten(t)
		if exit := task.Wait(t); exit.ExitCode != 0 || !strings.HasSuffix(task.Stdout(), "after\n") {
			t.Errorf("%+v, stdout %q", exit, task.Stdout())
		}
	})
	t.Run("56 events", func(t *testing.T) {
		task := n.Task(t, n.probe("", "echo", "x"))
		task.Run(t)
		events := n.Events(task.Config.ID)
		if len(events) == 0 {
			t.Fatal("no events")
		}
		for _, e := range events {
			if e.AllocID != task.Config.AllocID || e.TaskName != "main" || e.Message == "" || e.Timestamp.IsZero() {
				t.Errorf("event %+v", e)
			}
		}
		if notes := task.Notes(); notes[driver.AnnotationPhase] != driver.PhaseStarted || notes[driver.AnnotationMillis] == "" {
			t.Errorf("annotations %v", notes)
		}
	})
	t.Run("57 a script", func(t *testing.T) { checkScript(t, n) })
}

func checkStats(t *testing.T, n node) {
	t.Helper()
	task := n.Task(t, n.probe("", "mem", "20"))
	task.Start(t)
	ready(t, task, "allocated")
	usages, err := n.TaskStats(t.Context(), task.Config.ID, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var last *drivers.TaskResourceUsage
	for range 3 {
		if last = <-usages; last == nil {
			t.Fatal("the stream ended before the task")
		}
	}
	memory, cpu := last.ResourceUsage.MemoryStats, last.ResourceUsage.CpuStats
	if memory.Usage < 20<<20 || memory.RSS < 20<<20 || memory.Usage > 64<<20 || last.Timestamp == 0 {
		t.Errorf("memory %+v of a task that has 20 MiB", memory)
	}
	for _, field := range []string{"Percent", "System Mode", "User Mode", "Throttled Periods", "Throttled Time"} {
		contains(t, strings.Join(cpu.Measured, ","), field)
	}
	if err := n.StopTask(task.Config.ID, 0, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for {
		select {
		case _, open := <-usages:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the stream does not end with the task")
		}
	}
}

func checkScript(t *testing.T, n node) {
	t.Helper()
	task := n.Task(t, n.probe("", "init")) // which reaps
	task.Start(t)
	got, err := n.ExecTask(task.Config.ID, []string{"/bin/probe", "then", "--", "echo", "out", "--", "err", "err", "--", "exit", "3"}, 20*time.Second)
	if err != nil || string(got.Stdout) != "out\n" || string(got.Stderr) != "err\n" || got.ExitResult.ExitCode != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := n.ExecTask(task.Config.ID, []string{"/bin/none"}, 20*time.Second); err == nil || !strings.Contains(err.Error(), "/bin/none") {
		t.Errorf("a script that is missing: %v", err)
	}
	if _, err := n.ExecTask(task.Config.ID, []string{"/bin/probe", "fork", "3"}, 500*time.Millisecond); err == nil {
		t.Error("a script that does not end in time succeeded")
	}
	left := ""
	if !plugin.Eventually(20*time.Second, func() bool {
		out, err := n.ExecTask(task.Config.ID, []string{"/bin/probe", "ls", "/proc"}, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		left = ""
		for name := range strings.Lines(string(out.Stdout)) {
			if name[0] >= '0' && name[0] <= '9' {
				left += name
			}
		}
		return strings.Count(left, "\n") <= 2 // the task and who looks
	}) {
		t.Fatalf("children of a script outlive its timeout:\n%s", left)
	}
}
