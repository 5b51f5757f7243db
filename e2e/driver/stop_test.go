//go:build e2e

package driver_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	drivertask "drover/driver/task"
	"drover/e2e/plugin"
)

// ready waits until the task has printed a text.
func ready(t *testing.T, task *plugin.Task, text string) {
	t.Helper()
	if !plugin.Eventually(20*time.Second, func() bool { return strings.Contains(task.Stdout(), text) }) {
		t.Fatalf("the task does not print %q: %q, %q", text, task.Stdout(), task.Stderr())
	}
}

func TestExit(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("37 exit codes", func(t *testing.T) {
		for code, text := range map[int]string{0: "0", 7: "7", 255: "255"} {
			if exit := n.Task(t, n.probe("", "exit", text)).Run(t); exit.ExitCode != code || exit.Signal != 0 || exit.OOMKilled || exit.Err != nil {
				t.Errorf("exit %d: %+v", code, exit)
			}
		}
	})
	t.Run("38 by a signal", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		ready(t, task, "ready")
		if err := n.SignalTask(task.Config.ID, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.ExitCode != 137 || exit.Signal != 9 {
			t.Errorf("%+v, want 137 by signal 9", exit)
		}
	})
	t.Run("39 want of memory", func(t *testing.T) {
		if exit := n.Task(t, n.probe("", "mem", "256")).Run(t); exit.ExitCode != 137 || !exit.OOMKilled {
			t.Errorf("%+v, want 137 for want of memory", exit)
		}
	})
	t.Run("39 a plain SIGKILL", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		ready(t, task, "ready")
		if err := n.StopTask(task.Config.ID, 10*time.Second, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.OOMKilled || exit.Signal != 9 {
			t.Errorf("%+v", exit)
		}
	})
}

func TestStop(t *testing.T) {
	n := start(t, plugin.Options{})
	usr1 := n.push(t, "usr1:1", driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, StopSignal: "SIGUSR1"})
	t.Run("40 the signal", func(t *testing.T) {
		for _, row := range []struct{ image, job, want string }{
			{n.ref, "", "got SIGTERM"}, {n.ref, "SIGHUP", "got SIGHUP"}, {usr1, "", "got SIGUSR1"}, {usr1, "SIGINT", "got SIGINT"},
		} {
			task := n.Task(t, `image = "`+row.image+"\"\nargs = [\"trap\"]")
			task.Start(t)
			ready(t, task, "ready")
			if err := n.StopTask(task.Config.ID, 20*time.Second, row.job); err != nil {
				t.Fatal(err)
			}
			if exit := task.Wait(t); exit.ExitCode != 0 || !strings.Contains(task.Stdout(), row.want) {
				t.Errorf("%+v: %+v, %q", row, exit, task.Stdout())
			}
		}
	})
	t.Run("41 who ignores it, with children", func(t *testing.T) {
		task := n.Task(t, n.probe("", "sigignore"))
		task.Start(t)
		ready(t, task, "ready")
		if _, err := n.ExecTask(task.Config.ID, []string{"/bin/probe", "orphan", "/tmp/seen"}, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := n.StopTask(task.Config.ID, 500*time.Millisecond, ""); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.ExitCode != 137 || exit.Signal != 9 {
			t.Errorf("%+v", exit)
		}
		if left := members(t, task); left != "" {
			t.Errorf("still in its cgroup: %s", left)
		}
	})
	t.Run("42 without grace", func(t *testing.T) {
		task := n.Task(t, n.probe("", "sigignore"))
		task.Start(t)
		ready(t, task, "ready")
		if err := n.StopTask(task.Config.ID, 0, "SIGTERM"); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.Signal != 9 {
			t.Errorf("%+v", exit)
		}
	})
	t.Run("43 a signal", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "0"))
		task.Start(t)
		ready(t, task, "ready")
		if err := n.SignalTask(task.Config.ID, "SIGUSR2"); err != nil {
			t.Fatal(err)
		}
		task.Wait(t)
		contains(t, task.Stdout(), "got SIGUSR2")
	})
	t.Run("43 an unknown signal", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		if err := n.SignalTask(task.Config.ID, "SIGNONE"); err == nil || !strings.Contains(err.Error(), "SIGNONE") {
			t.Errorf("error %v", err)
		}
		if err := n.DestroyTask(task.Config.ID, true); err != nil {
			t.Error(err)
		}
	})
	t.Run("44 many wait", func(t *testing.T) {
		task := n.Task(t, n.probe("", "sleep", "1"))
		task.Start(t)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if ends, err := n.WaitTask(t.Context(), task.Config.ID); err != nil {
					t.Error(err)
				} else if exit := <-ends; exit == nil || exit.ExitCode != 0 {
					t.Errorf("%+v", exit)
				}
			})
		}
		group.Wait()
		if exit := task.Wait(t); exit.ExitCode != 0 {
			t.Errorf("after its end: %+v", exit)
		}
	})
	t.Run("45 destroying what runs", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		if err := n.DestroyTask(task.Config.ID, false); err == nil {
			t.Error("a running task was destroyed without force")
		}
		if status, err := n.InspectTask(task.Config.ID); err != nil || status.State != drivers.TaskStateRunning {
			t.Errorf("the task is %+v, %v", status, err)
		}
		if err := n.DestroyTask(task.Config.ID, true); err != nil {
			t.Error(err)
		}
	})
}

// members lists the processes in a task's cgroup, if that is still there.
func members(t *testing.T, task *plugin.Task) string {
	t.Helper()
	for _, dir := range task.Cgroups() {
		if raw, err := os.ReadFile(dir + "/cgroup.procs"); err == nil && len(raw) > 0 {
			return string(raw)
		}
	}
	return ""
}

func TestRecover(t *testing.T) {
	n := start(t, plugin.Options{})
	again := func(t *testing.T) {
		t.Helper()
		n.Kill(t)
		n.Launch(t)
	}
	t.Run("46 a running task", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "0"))
		task.Start(t)
		ready(t, task, "ready")
		again(t)
		if err := n.RecoverTask(task.Handle); err != nil {
			t.Fatal(err)
		}
		if err := n.SignalTask(task.Config.ID, "SIGUSR1"); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.ExitCode != 0 || !strings.Contains(task.Stdout(), "got SIGUSR1") {
			t.Errorf("%+v, %q", exit, task.Stdout())
		}
	})
	t.Run("47 a task that ended meanwhile", func(t *testing.T) {
		task := n.Task(t, n.probe("", "then", "--", "sleep", "1", "--", "exit", "9"))
		task.Start(t)
		n.Kill(t)
		if !plugin.Eventually(20*time.Second, func() bool { return members(t, task) == "" }) {
			t.Fatal("the task does not end")
		}
		n.Launch(t)
		if err := n.RecoverTask(task.Handle); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.ExitCode != 9 {
			t.Errorf("%+v, want 9", exit)
		}
	})
	t.Run("48 a task whose state is gone", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		if err := n.DestroyTask(task.Config.ID, true); err != nil {
			t.Fatal(err)
		}
		again(t)
		if err := n.RecoverTask(task.Handle); err == nil {
			t.Error("a task that is no more was recovered")
		}
	})
	t.Run("49 the plugin dies", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		again(t)
		if err := n.DestroyTask(task.Config.ID, true); err != nil {
			t.Fatal(err)
		}
		if left := plugin.Processes(n.Shim()); len(left) > 0 {
			t.Errorf("shims %v still live", left)
		}
	})
	t.Run("51 a pid that is used again", func(t *testing.T) { checkReusedPID(t, n) })
}

// checkReusedPID lets a task and its shim die unseen, and gives their pids, on paper, to a process of ours. Whatever the
// driver does then must not reach it.
func checkReusedPID(t *testing.T, n node) {
	t.Helper()
	task := n.Task(t, n.probe("", "trap", "600"))
	task.Start(t)
	ready(t, task, "ready")
	n.Kill(t)
	dir := filepath.Join(n.Dir, "state/tasks", drivertask.ContainerID(task.Config.ID))
	bystander := exec.CommandContext(t.Context(), "sleep", "600")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"shim.json", "init.json"} {
		givePID(t, filepath.Join(dir, file), bystander.Process.Pid)
	}
	n.Launch(t)
	recovered := n.RecoverTask(task.Handle)
	stopped := n.StopTask(task.Config.ID, time.Second, "")
	destroyed := n.DestroyTask(task.Config.ID, true)
	t.Log(recovered, stopped, destroyed)
	if err := syscall.Kill(bystander.Process.Pid, 0); err != nil {
		t.Errorf("a process that has a task's pid, and is another one, was ended: %v", err)
	}
	_ = bystander.Process.Kill()
	_ = bystander.Wait()
}

// givePID kills the process that a state file names, and writes another one's number into its place.
func givePID(t *testing.T, path string, pid int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var id map[string]any
	if err := json.Unmarshal(raw, &id); err != nil {
		t.Fatal(err)
	}
	old, ok := id["pid"].(float64)
	if !ok {
		t.Fatalf("%s names no pid: %s", path, raw)
	}
	if err := syscall.Kill(int(old), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	id["pid"] = pid
	if raw, err = json.Marshal(id); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
