//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// TestDriver_survives kills everything around a task and wants the task to go on.
func TestDriver_survives(t *testing.T) {
	n := startDriverNode(t, 512, "")
	ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/probe:1")
	image := func(args ...string) map[string]any { return map[string]any{"image": ref, "args": args} }

	alloc := n.start(t, taskOf("survivor", nomad.JobTypeService, image("trap", "0")))
	n.await(t, alloc, "running")
	n.awaitLog(t, alloc, "stdout", "ready")
	pid := n.containerPID(t, alloc)
	same := func(t *testing.T) {
		t.Helper()
		if state := n.await(t, alloc, "running"); state.Restarts != 0 {
			t.Fatalf("the task was restarted: %s", describe(state))
		}
		eventually(t, 30*time.Second, "the task cannot be reached", func() (bool, string) {
			var out strings.Builder
			code, err := n.cluster.Nomad.Allocations().Exec(t.Context(), alloc, "main", false, []string{"/bin/probe", "echo", "alive"},
				strings.NewReader(""), &out, &out, nil, nil)
			return err == nil && code == 0 && out.String() == "alive\n", out.String()
		})
		if got := n.containerPID(t, alloc); got != pid {
			t.Fatalf("process 1 of the container is %d, was %d", got, pid)
		}
	}
	t.Run("a killed plugin", func(t *testing.T) {
		n.killPlugin(t)
		same(t)
	})
	t.Run("an agent that is restarted", func(t *testing.T) {
		if err := n.cluster.StopNomad(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.restart(t)
		same(t)
	})
	t.Run("a killed agent", func(t *testing.T) {
		if err := n.cluster.KillNomad(); err != nil {
			t.Fatal(err)
		}
		n.restart(t)
		same(t)
	})
	t.Run("a killed agent and a killed plugin", func(t *testing.T) {
		if err := n.cluster.KillNomad(); err != nil {
			t.Fatal(err)
		}
		n.killPlugin(t)
		n.restart(t)
		same(t)
	})
	t.Run("a killed shim", func(t *testing.T) {
		n.kill(t, n.shimPIDs())
		same(t)
	})
	t.Run("and stops at last, by its signal", func(t *testing.T) {
		if _, err := n.cluster.Nomad.Allocations().Stop(alloc, nil); err != nil {
			t.Fatal(err)
		}
		state := n.await(t, alloc, "dead")
		n.awaitLog(t, alloc, "stdout", "SIGTERM")
		if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "0" {
			t.Errorf("ended with %v", end)
		}
	})
}

// TestDriver_exits kills what watches a task, lets it end, and wants its end to be told truly.
func TestDriver_exits(t *testing.T) {
	n := startDriverNode(t, 512, "")
	ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/probe:1")
	image := func(args ...string) map[string]any { return map[string]any{"image": ref, "args": args} }
	t.Run("an exit that nobody watched is told truly", func(t *testing.T) {
		alloc := n.start(t, taskOf("meanwhile", nomad.JobTypeBatch, image("then", "--", "sleep", "3", "--", "exit", "7")))
		n.await(t, alloc, "running")
		pid := n.containerPID(t, alloc)
		if err := n.cluster.KillNomad(); err != nil {
			t.Fatal(err)
		}
		n.killPlugin(t)
		eventually(t, 20*time.Second, "the task does not end", func() (bool, string) {
			return syscall.Kill(pid, 0) != nil, strconv.Itoa(pid)
		})
		n.restart(t)
		state := n.await(t, alloc, "dead")
		if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "7" {
			t.Errorf("ended with %v, want exit code 7\n%s", end, describe(state))
		}
	})
	t.Run("want of memory that nobody watched is told truly", func(t *testing.T) {
		alloc := n.start(t, taskOf("hungry", nomad.JobTypeBatch, image("then", "--", "sleep", "3", "--", "mem", "256")))
		n.await(t, alloc, "running")
		pid := n.containerPID(t, alloc)
		if err := n.cluster.KillNomad(); err != nil {
			t.Fatal(err)
		}
		n.killPlugin(t)
		eventually(t, 20*time.Second, "the task does not end", func() (bool, string) {
			return syscall.Kill(pid, 0) != nil, strconv.Itoa(pid)
		})
		n.restart(t)
		state := n.await(t, alloc, "dead")
		if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] == "0" || end["oom_killed"] != "true" {
			t.Errorf("ended with %v, want a failure for want of memory\n%s", end, describe(state))
		}
	})
	t.Run("an exit after the shim was killed is told truly", func(t *testing.T) {
		alloc := n.start(t, taskOf("orphan", nomad.JobTypeBatch, image("then", "--", "sleep", "3", "--", "exit", "9")))
		n.await(t, alloc, "running")
		n.kill(t, n.shimPIDs())
		state := n.await(t, alloc, "dead")
		if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "9" {
			t.Errorf("ended with %v, want exit code 9\n%s", end, describe(state))
		}
	})
}

func (n *driverNode) restart(t *testing.T) {
	t.Helper()
	if err := n.cluster.RestartNomad(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// shimPIDs are the supervisors, not the containers that they made of themselves.
func (n *driverNode) shimPIDs() []int {
	var pids []int
	for _, pid := range plugin.Processes(n.shim) {
		line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err == nil && strings.Contains(string(line), "\x00run\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends processes, of which there must be some, by SIGKILL and waits for their end.
func (n *driverNode) kill(t *testing.T, pids []int) {
	t.Helper()
	if len(pids) == 0 {
		t.Fatal("there is nothing to kill")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %d: %v", pid, err)
		}
		eventually(t, 10*time.Second, "the process does not end", func() (bool, string) {
			_, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
			return err != nil, strconv.Itoa(pid)
		})
	}
}

func (n *driverNode) killPlugin(t *testing.T) {
	t.Helper()
	n.kill(t, plugin.Processes(n.plugin))
}

// containerPID is process 1 of an allocation's only container.
func (n *driverNode) containerPID(t *testing.T, alloc *nomad.Allocation) int {
	t.Helper()
	found := n.containers(t, alloc)
	if len(found) != 1 {
		t.Fatalf("%d containers run, want 1: %v", len(found), found)
	}
	return found[0]
}

// containers are the processes 1 of an allocation's containers.
func (n *driverNode) containers(t *testing.T, alloc *nomad.Allocation) []int {
	t.Helper()
	var found []int
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		groups, _ := os.ReadFile(filepath.Join(entry, "cgroup"))
		status, _ := os.ReadFile(filepath.Join(entry, "status")) // a process that has ended has neither
		_, pids, _ := strings.Cut(string(status), "NSpid:")
		pids, _, _ = strings.Cut(pids, "\n")
		if numbers := strings.Fields(pids); strings.Contains(string(groups), alloc.ID) && len(numbers) > 1 && numbers[len(numbers)-1] == "1" {
			pid, _ := strconv.Atoi(filepath.Base(entry)) // digits, by the pattern
			found = append(found, pid)
		}
	}
	return found
}
