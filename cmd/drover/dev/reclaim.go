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
	agents := agentsOf(c.Dir)
	tasks, err := filepath.Glob(filepath.Join(c.tasksDir(), "tasks", "*"))
	if err != nil || (len(agents) == 0 && len(tasks) == 0) {
		return errors.Join(err, c.dropNetwork(ctx))
	}
	c.Progress("ending what an earlier drover dev left running")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.purgeJobs(ctx); err != nil {
		c.Progress("its Nomad is of no help: " + err.Error())
	}
	var failures []error
	for _, pid := range agents {
		failures = append(failures, endProcess(ctx, pid))
	}
	for _, dir := range tasks {
		failures = append(failures, shim.Destroy(ctx, dir))
	}
	failures = append(failures, c.dropNamespaces(), unmountBelow(c.Dir), unmountBelow(c.tasksDir()), c.dropNetwork(ctx))
	return errors.Join(failures...)
}

// agentsOf are the agents, plugins and log collectors that a platform started: they share its directory of agents.
func agentsOf(dir string) []int {
	found, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil
	}
	var pids []int
	for _, link := range found {
		cwd, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(cwd, " (deleted)") != filepath.Join(dir, "agents") {
			continue
		}
		// A person may look around there too.
		exe, err := os.Readlink(filepath.Join(filepath.Dir(link), "exe"))
		name := filepath.Base(exe)
		if err != nil || !strings.HasPrefix(name, "nomad") && !strings.HasPrefix(name, "consul") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
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
