package plugin

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const cgroupRoot = "/sys/fs/cgroup"

// makeCgroups makes the cgroups that Nomad makes for a task, and returns them with the one path that it tells drivers.
func makeCgroups(name string) (made []string, told string, err error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		told = filepath.Join(cgroupRoot, "nomad.slice/share.slice", name+".scope")
		return []string{told}, told, makeSlices(told)
	}
	for _, controller := range []string{"freezer", "cpu", "memory"} {
		dir := filepath.Join(cgroupRoot, controller, "nomad", name)
		made = append(made, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return made, "", err
		}
	}
	told = filepath.Join(cgroupRoot, "cpuset/nomad/share")
	if err := os.MkdirAll(told, 0o755); err != nil {
		return made, "", err
	}
	for _, dir := range []string{filepath.Dir(told), told} {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(dir, file); err != nil {
				return made, "", err
			}
		}
	}
	return made, told, nil
}

// inherit fills a cpuset's file with its parent's value when it is empty.
func inherit(dir, file string) error {
	if own, err := os.ReadFile(filepath.Join(dir, file)); err != nil || strings.TrimSpace(string(own)) != "" {
		return err
	}
	value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), value, 0o644)
}

// makeSlices makes a cgroup of version 2 below slices that have the controllers that Nomad turns on.
func makeSlices(path string) error {
	for _, dir := range []string{cgroupRoot, filepath.Dir(filepath.Dir(path)), filepath.Dir(path)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpuset +cpu +io +memory +pids"), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(path, 0o755)
}

// Leftovers lists state, mounts, cgroups, leases and processes that the node's tasks have left.
func (n *Node) Leftovers() []string {
	var left []string
	for _, pattern := range []string{"state/tasks/*", "state/ranges/*", "images/leases/[^p]*", "images/staging/*/*"} {
		found, _ := filepath.Glob(filepath.Join(n.Dir, pattern)) // the pattern is good
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.Dir) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	for _, task := range n.tasks {
		for _, pattern := range []string{"*/nomad/" + task.Config.AllocID, "nomad.slice/*/" + task.Config.AllocID, "*/nomad/drover-shims/t-" + task.Config.AllocID[:8], "nomad.slice/drover-shims.slice/t-" + task.Config.AllocID[:8]} {
			found, _ := filepath.Glob(filepath.Join(cgroupRoot, pattern+"*"))
			left = append(left, found...)
		}
	}
	for _, pid := range Processes(n.Shim()) {
		left = append(left, "shim process "+strconv.Itoa(pid))
	}
	slices.Sort(left)
	return left
}

// Processes returns the pids of a program.
func Processes(exe string) []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is good
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == exe {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link))) // digits, by the pattern
			pids = append(pids, pid)
		}
	}
	return pids
}

// Reserve gives the task processors of its own, as Nomad does for resources.cores. The task is not to be started yet.
func (t *Task) Reserve(tb testing.TB, list string) {
	tb.Helper()
	name := t.Config.AllocID + "." + t.Config.Name
	linux := t.Config.Resources.LinuxResources
	linux.CpusetCpus = list
	var err error
	if _, v2 := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); v2 == nil {
		linux.CpusetCgroupPath = filepath.Join(cgroupRoot, "nomad.slice/reserve.slice", name+".scope")
		err = makeSlices(linux.CpusetCgroupPath)
	} else {
		linux.CpusetCgroupPath = filepath.Join(cgroupRoot, "cpuset/nomad/reserve", name)
		err = reserveV1(linux.CpusetCgroupPath, list)
	}
	if err != nil {
		tb.Fatal(err)
	}
	t.cgroups = append(t.cgroups, linux.CpusetCgroupPath)
}

func reserveV1(dir, list string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := inherit(filepath.Dir(dir), file); err != nil {
			return err
		}
	}
	if err := inherit(dir, "cpuset.mems"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cpuset.cpus"), []byte(list), 0o644)
}
