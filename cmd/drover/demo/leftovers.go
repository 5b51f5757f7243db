package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"drover/cmd/drover/dev"
)

// traces are the marks by which things of one platform are known: its directories, its network devices and the
// ids of its allocations, in names of cgroups, network namespaces, mounts and processes.
type traces struct {
	dirs []string
	// links and groups are the network devices and cgroups before the platform came.
	links  []string
	groups []string

	mutex  sync.Mutex
	allocs []string
}

// allocMark is the part of an allocation's id that is in every name made from it.
const allocMark = 8

func (t *traces) add(allocID string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
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
	for _, look := range []struct {
		kind  string
		there []string
	}{
		{"mount", t.marked(readLines("/proc/self/mountinfo"))},
		{"process", t.processes()},
		{"cgroup", t.cgroups()},
		{"network namespace", t.marked(append(names("/run/netns"), names("/var/run/netns")...))},
		{"network device", t.devices()},
		{"packet filter rule", t.marked(rules(ctx))},
	} {
		for _, what := range look.there {
			found = append(found, look.kind+" "+what)
		}
	}
	return found
}

// marked are those of some texts that bear a mark of the platform.
func (t *traces) marked(texts []string) []string {
	return slices.DeleteFunc(texts, func(text string) bool { return !t.in(text) })
}

// devices are network devices of our kind that were not there before.
func (t *traces) devices() []string {
	return slices.DeleteFunc(links(), func(link string) bool {
		return !strings.HasPrefix(link, "drover") || slices.Contains(t.links, link)
	})
}

// processes are those of the platform, other than ourselves and those who started us.
func (t *traces) processes() []string {
	ours := ancestors()
	var found []string
	for _, pid := range pids() {
		command := strings.Join(strings.Split(readText(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"), " ")
		bears := t.in(command) || t.in(readText(fmt.Sprintf("/proc/%d/cgroup", pid)))
		if bears && !slices.Contains(ours, pid) {
			found = append(found, fmt.Sprintf("%d %s", pid, command))
		}
	}
	return found
}

func (t *traces) cgroups() []string {
	var found []string
	for _, path := range dev.Cgroups() {
		if !slices.Contains(t.groups, path) && !dev.Others() {
			found = append(found, path)
		}
	}
	var walk func(dir string)
	walk = func(dir string) {
		for _, name := range directories(dir) {
			path := filepath.Join(dir, name)
			if t.in(name) {
				found = append(found, path)
			}
			walk(path)
		}
	}
	walk("/sys/fs/cgroup")
	return found
}

// directories are the names of the directories in one; what is gone holds none.
func directories(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []string
	for _, entry := range entries {
		if entry.IsDir() {
			list = append(list, entry.Name())
		}
	}
	return list
}

// names are those of a directory's entries; what is gone holds none.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	list := make([]string, 0, len(entries))
	for _, entry := range entries {
		list = append(list, filepath.Join(dir, entry.Name()))
	}
	return list
}

// rules are those of the packet filter.
func rules(ctx context.Context) []string {
	text, err := exec.CommandContext(ctx, "iptables-save").Output()
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
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
	var list []int
	for _, name := range directories("/proc") {
		if pid, err := strconv.Atoi(name); err == nil {
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
