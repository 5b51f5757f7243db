package demo

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// traces are the marks by which things of one platform are known: its directories, its network devices and the
// ids of its allocations, in names of cgroups, network namespaces, mounts and processes.
type traces struct {
	dirs   []string
	allocs []string
	// links are the network devices before the platform came.
	links []string
}

// allocMark is the part of an allocation's id that is in every name made from it.
const allocMark = 8

func (t *traces) add(allocID string) {
	if mark := allocID[:min(len(allocID), allocMark)]; !slices.Contains(t.allocs, mark) {
		t.allocs = append(t.allocs, mark)
	}
}

// in tells whether a text bears a mark of the platform.
func (t *traces) in(text string) bool {
	isIn := func(mark string) bool { return strings.Contains(text, mark) }
	return slices.ContainsFunc(t.dirs, isIn) || slices.ContainsFunc(t.allocs, isIn)
}

// left lists what is still there of the platform: nothing, when it was taken down properly.
func (t *traces) left(ctx context.Context) []string {
	var found []string
	note := func(kind, what string) { found = append(found, kind+" "+what) }
	for _, line := range readLines("/proc/self/mountinfo") {
		if t.in(line) {
			note("mount", line)
		}
	}
	for _, pid := range pids() {
		if what := t.process(pid); what != "" {
			note("process", what)
		}
	}
	for _, path := range t.cgroups() {
		note("cgroup", path)
	}
	for _, dir := range []string{"/run/netns", "/var/run/netns"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // there are no named namespaces
		}
		for _, entry := range entries {
			if t.in(entry.Name()) {
				note("network namespace", filepath.Join(dir, entry.Name()))
			}
		}
	}
	for _, link := range links() {
		if strings.HasPrefix(link, "drover") && !slices.Contains(t.links, link) {
			note("network device", link)
		}
	}
	if rules, err := exec.CommandContext(ctx, "iptables-save").Output(); err == nil {
		for line := range strings.Lines(string(rules)) {
			if t.in(line) {
				note("packet filter rule", strings.TrimSpace(line))
			}
		}
	}
	return found
}

// process describes a process of the platform; it is empty for others, for ourselves and for those who started us.
func (t *traces) process(pid int) string {
	if slices.Contains(ancestors(), pid) {
		return ""
	}
	command := strings.Join(strings.Split(readText(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"), " ")
	if !t.in(command) && !t.in(readText(fmt.Sprintf("/proc/%d/cgroup", pid))) {
		return ""
	}
	return fmt.Sprintf("%d %s", pid, command)
}

func (t *traces) cgroups() []string {
	var found []string
	// A cgroup that goes away while we walk is no leftover.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		if t.in(entry.Name()) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// ancestors are our own process and those that it descends from.
func ancestors() []int {
	var list []int
	for pid := os.Getpid(); pid > 1; {
		list = append(list, pid)
		pid = parent(pid)
	}
	return list
}

func parent(pid int) int {
	_, rest, found := strings.Cut(readText(fmt.Sprintf("/proc/%d/status", pid)), "PPid:")
	if !found {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	number, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return number
}

func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

func links() []string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(interfaces))
	for _, device := range interfaces {
		names = append(names, device.Name)
	}
	return names
}

// readText reads a file of /proc; one that is gone is empty.
func readText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

func readLines(path string) []string {
	return strings.Split(strings.TrimRight(readText(path), "\n"), "\n")
}
