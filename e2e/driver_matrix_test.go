//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// TestDriver_killMatrix kills each of the processes around a task by SIGKILL, alone and in pairs, while the task starts,
// while it runs and while it is stopped. What must hold in each case: the true end is told, nothing runs twice, and
// nothing is left.
func TestDriver_killMatrix(t *testing.T) {
	n := startDriverNode(t, 512, `orphan_grace = "3s"`)
	m := matrix{driverNode: n, ref: n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/probe:1")}
	for _, victims := range victims() {
		name := strings.Join(victims, " and ")
		t.Run("at start: "+name, func(t *testing.T) { m.atStart(t, victims) })
		t.Run("running: "+name, func(t *testing.T) { m.whileRunning(t, victims) })
		t.Run("at stop: "+name, func(t *testing.T) { m.atStop(t, victims) })
	}
}

// The processes around a task.
const (
	thePlugin = "plugin"
	theShim   = "shim"
	theAgent  = "agent"
	theLogmon = "logmon"
	theInit   = "init"
)

// victims lists each process alone, and all pairs in both orders where the order can matter.
func victims() [][]string {
	all := []string{thePlugin, theShim, theAgent, theLogmon, theInit}
	var sets [][]string
	for i, first := range all {
		sets = append(sets, []string{first})
		for _, second := range all[i+1:] {
			sets = append(sets, []string{first, second})
		}
	}
	return sets
}

type matrix struct {
	*driverNode
	ref string
}

func (m matrix) job(t *testing.T, args ...string) *nomad.Job {
	t.Helper()
	id := "m" + strconv.FormatInt(time.Now().UnixNano(), 36)
	return taskOf(id, nomad.JobTypeService, map[string]any{"image": m.ref, "args": args}, func(_ *nomad.Job, task *nomad.Task) {
		task.KillTimeout = new(2 * time.Second)
	})
}

// whileRunning: whoever dies, the task goes on; and when it is the task itself, its end is told.
func (m matrix) whileRunning(t *testing.T, victims []string) {
	t.Helper()
	job := m.job(t, "trap", "0")
	alloc := m.start(t, job)
	m.await(t, alloc, "running")
	m.awaitLog(t, alloc, "stdout", "ready")
	pid := m.containerPID(t, alloc)
	m.strike(t, alloc, victims)
	if slices.Contains(victims, theInit) {
		state := m.await(t, alloc, "dead")
		end := event(state, nomad.TaskTerminated).Details
		if end["exit_code"] != "137" || end["signal"] != "9" || end["oom_killed"] != "false" {
			t.Errorf("ended with %v, want 137 by signal 9\n%s", end, describe(state))
		}
	} else {
		if state := m.await(t, alloc, "running"); state.Restarts != 0 {
			t.Errorf("the task was restarted: %s", describe(state))
		}
		if got := m.containerPID(t, alloc); got != pid {
			t.Errorf("process 1 is %d, was %d", got, pid)
		}
	}
	m.finish(t, job, alloc)
}

// atStart: whatever becomes of the start, no more than one container comes of it.
func (m matrix) atStart(t *testing.T, victims []string) {
	t.Helper()
	job := m.job(t, "trap", "0")
	job.TaskGroups[0].RestartPolicy = &nomad.RestartPolicy{Attempts: new(3), Mode: new("fail"), Interval: new(time.Hour), Delay: new(100 * time.Millisecond)}
	before := m.shimPIDs()
	alloc := m.start(t, job)
	eventually(t, 2*time.Minute, "no shim is started", func() (bool, string) {
		return slices.ContainsFunc(m.shimPIDs(), func(pid int) bool { return !slices.Contains(before, pid) }), ""
	})
	m.strike(t, alloc, victims)
	eventually(t, time.Minute, "the task neither runs nor has ended", func() (bool, string) {
		state, err := m.task(alloc)
		if err != nil {
			return false, err.Error()
		}
		return state.State == "dead" || state.State == "running" && len(m.containers(t, alloc)) == 1, describe(state)
	})
	if running := m.containers(t, alloc); len(running) > 1 {
		t.Errorf("containers run twice: %v", running)
	}
	m.finish(t, job, alloc)
}

// atStop: the task ignores the signal; while its grace lasts somebody dies.
func (m matrix) atStop(t *testing.T, victims []string) {
	t.Helper()
	job := m.job(t, "sigignore")
	alloc := m.start(t, job)
	m.await(t, alloc, "running")
	m.awaitLog(t, alloc, "stdout", "ready")
	if _, _, err := m.cluster.Nomad.Jobs().Deregister(*job.ID, false, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the task is not being stopped", func() (bool, string) {
		state, err := m.task(alloc)
		return err == nil && event(state, nomad.TaskKilling).Type != "", fmt.Sprint(err)
	})
	m.strike(t, alloc, victims)
	state := m.await(t, alloc, "dead")
	if end := event(state, nomad.TaskTerminated).Details; len(end) > 0 && end["oom_killed"] == "true" {
		t.Errorf("ended with %v: no memory was wanted", end)
	}
	m.finish(t, job, alloc)
}

// strike kills the victims, one right after the other, and starts the agent again when it was among them.
func (m matrix) strike(t *testing.T, alloc *nomad.Allocation, victims []string) {
	t.Helper()
	for _, victim := range victims {
		if victim == theAgent {
			if err := m.cluster.KillNomad(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		pids := m.victim(t, alloc, victim)
		if len(pids) == 0 && victim == victims[0] && victim != theInit { // process 1 may not be there yet
			t.Errorf("there is no %s to kill", victim)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended with the one before
		}
	}
	if slices.Contains(victims, theAgent) {
		m.restart(t)
	}
}

func (m matrix) victim(t *testing.T, alloc *nomad.Allocation, victim string) []int {
	t.Helper()
	switch victim {
	case thePlugin:
		return plugin.Processes(m.plugin)
	case theShim:
		return m.shimPIDs()
	case theLogmon:
		return logmons(alloc)
	default:
		return m.containers(t, alloc)
	}
}

// logmons are the processes that read an allocation's log fifos, and are no containers.
func logmons(alloc *nomad.Allocation) []int {
	var pids []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
	for _, line := range lines {
		raw, err := os.ReadFile(line)
		if err != nil || !strings.Contains(string(raw), "\x00logmon\x00") {
			continue
		}
		links, _ := filepath.Glob(filepath.Join(filepath.Dir(line), "fd/*"))
		if slices.ContainsFunc(links, func(link string) bool {
			target, err := os.Readlink(link)
			return err == nil && strings.Contains(target, alloc.ID)
		}) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line))) // digits, by the pattern
			pids = append(pids, pid)
		}
	}
	return pids
}

// finish purges the job and waits until nothing of the allocation is left.
func (m matrix) finish(t *testing.T, job *nomad.Job, alloc *nomad.Allocation) {
	t.Helper()
	m.purge(t, *job.ID)
	eventually(t, 45*time.Second, "something is left", func() (bool, string) {
		left := append(m.leftovers(), m.leases(t)...)
		for _, pid := range m.containers(t, alloc) {
			left = append(left, "container process "+strconv.Itoa(pid))
		}
		return len(left) == 0, strings.Join(left, ", ")
	})
}

func (m matrix) leases(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(m.imageDir(), "leases/*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
