package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/driver/shim"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sys/unix"
)

// reclaim ends what a platform left that was killed and could not take itself down: its jobs while its Nomad still
// answers, then its agents, tasks, mounts, network namespaces and device. It does nothing after a proper end.
func (c Config) reclaim(ctx context.Context) error {
	tasks, err := c.tasks()
	if err != nil || (len(agentsOf(c.Dir)) == 0 && len(tasks) == 0) {
		return errors.Join(err, c.dropNetwork(ctx))
	}
	c.Progress("ending what an earlier drover dev left running")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.purgeJobs(ctx); err != nil {
		c.Progress("its Nomad is of no help: " + err.Error())
	}
	return errors.Join(c.sweep(ctx), c.dropNetwork(ctx))
}

// tasks are the driver's directories of tasks that were not taken down.
func (c Config) tasks() ([]string, error) {
	return filepath.Glob(filepath.Join(c.tasksDir(), "tasks", "*"))
}

// sweep ends agents and their plugins, tasks, mounts and network namespaces. After agents that ended properly, and took
// their tasks with them, there is nothing to do.
func (c Config) sweep(ctx context.Context) error {
	var failures []error
	// A Nomad that is ending may start its plugin once more.
	for range 3 {
		for _, pid := range agentsOf(c.Dir) {
			failures = append(failures, endProcess(ctx, pid))
		}
	}
	tasks, err := c.tasks()
	failures = append(failures, err)
	for _, dir := range tasks {
		failures = append(failures, shim.Destroy(ctx, dir))
	}
	failures = append(failures, c.dropNamespaces(), unmountBelow(c.Dir), unmountBelow(c.tasksDir()))
	return errors.Join(failures...)
}

// agentsOf are the agents that were started with a configuration file of a state directory, and plugins started from it.
func agentsOf(dir string) []int {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && isAgent(dir, strings.Split(string(text), "\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isAgent tells an agent or a plugin of a state directory from a person's editor of its files.
func isAgent(dir string, command []string) bool {
	program := filepath.Base(command[0])
	switch {
	case command[0] == filepath.Join(dir, "cell/plugins", pluginName):
		return true
	case strings.HasPrefix(program, "consul"):
		return slices.Contains(command, filepath.Join(dir, "agents/consul.json"))
	case strings.HasPrefix(program, "nomad"):
		return slices.Contains(command, filepath.Join(dir, "agents/nomad.hcl"))
	default:
		return false
	}
}

var httpPort = regexp.MustCompile(`(?m)^\s*http = (\d+)$`)

// purgeJobs takes the jobs away from the Nomad that still runs and waits until their allocations have ended.
func (c Config) purgeJobs(ctx context.Context) error {
	config, err := os.ReadFile(c.below("agents", "nomad.hcl"))
	if err != nil {
		return err
	}
	port := httpPort.FindSubmatch(config)
	if port == nil {
		return errors.New("its configuration names no port")
	}
	client, err := api.NewClient(&api.Config{Address: "http://127.0.0.1:" + string(port[1])})
	if err != nil {
		return err
	}
	query := (&api.QueryOptions{Namespace: "*"}).WithContext(ctx)
	jobs, _, err := client.Jobs().List(query)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		if _, _, err := client.Jobs().Deregister(job.ID, true, (&api.WriteOptions{Namespace: job.Namespace}).WithContext(ctx)); err != nil {
			return err
		}
	}
	return until(ctx, "allocations still run", func() bool {
		allocs, _, err := client.Allocations().List(query)
		return err == nil && !slices.ContainsFunc(allocs, func(alloc *api.AllocationListStub) bool {
			return alloc.ClientStatus == api.AllocClientStatusRunning || alloc.ClientStatus == api.AllocClientStatusPending
		})
	})
}

// endProcess interrupts a process and kills it when that is not enough.
func endProcess(ctx context.Context, pid int) error {
	if err := unix.Kill(pid, unix.SIGINT); err != nil {
		return nil // it has ended already
	}
	gone := func() bool { return unix.Kill(pid, 0) != nil }
	patient, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if until(patient, "", gone) == nil {
		return nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return until(ctx, fmt.Sprintf("process %d does not end", pid), gone)
}

func until(ctx context.Context, otherwise string, met func() bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", otherwise, ctx.Err())
		}
	}
	return nil
}

// dropNamespaces removes the network namespaces of allocations, which are named by their ids.
func (c Config) dropNamespaces() error {
	allocs, err := filepath.Glob(c.below("agents", "nomad", "alloc", "*"))
	if err != nil {
		return err
	}
	var failures []error
	for _, alloc := range allocs {
		path := filepath.Join("/var/run/netns", filepath.Base(alloc))
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			failures = append(failures, fmt.Errorf("unmount %s: %w", path, err))
		}
		failures = append(failures, os.Remove(path))
	}
	return errors.Join(failures...)
}

// dropNetwork takes down the network of an earlier run.
func (c Config) dropNetwork(ctx context.Context) error {
	n, err := loadNetwork(c.below("cni"))
	if err != nil || n == nil {
		return err
	}
	return n.down(ctx)
}

// unmountBelow unmounts everything below a directory, deepest first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Sort(points)
	var failures []error
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			failures = append(failures, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(failures...)
}
