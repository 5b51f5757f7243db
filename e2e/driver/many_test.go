//go:build e2e

package driver_test

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"drover/e2e/plugin"
)

// starts is how many tasks TestStart_aThousandTimes runs, one after the other. An emulated machine asks for fewer.
func starts(t *testing.T) int {
	t.Helper()
	text := cmp.Or(os.Getenv("DROVER_STARTS"), "1000")
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 {
		t.Fatalf("DROVER_STARTS is %q, want a number of tasks", text)
	}
	return count
}

// TestStart_aThousandTimes wants the machine to be as it was, after many tasks.
func TestStart_aThousandTimes(t *testing.T) {
	count := starts(t)
	n := start(t, plugin.Options{})
	config := n.probe("", "exit", "3")
	once := func() {
		task := n.Task(t, config)
		if exit := task.Run(t); exit.ExitCode != 3 {
			t.Fatalf("ended with %+v: %s", exit, task.Stderr())
		}
		n.Remove(t, task)
	}
	once() // what is made once for each node is there now
	before := counts(t, n)
	for range count {
		once()
	}
	var after map[string]int
	if !plugin.Eventually(20*time.Second, func() bool {
		after = counts(t, n)
		return maps.Equal(before, after)
	}) {
		t.Fatalf("after %d tasks (-before +after):\n%s", count, gocmp.Diff(before, after))
	}
}

// counts counts what starts can leave: of the machine what bears the node's name, of the plugin what it holds.
func counts(t *testing.T, n node) map[string]int {
	t.Helper()
	got := map[string]int{
		"shims":                len(plugin.Processes(n.Shim())),
		"files of the plugin":  entries(filepath.Join("/proc", strconv.Itoa(n.PID()), "fd")),
		"state directories":    entries(filepath.Join(n.Dir, "state/tasks")),
		"ids in use":           entries(filepath.Join(n.Dir, "state/ranges")),
		"leases":               entries(filepath.Join(n.Dir, "images/leases")),
		"unfinished transfers": tree(filepath.Join(n.Dir, "images/staging")),
		"cgroups":              0,
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	got["mounts"] = strings.Count(string(mounts), n.Dir)
	parents, err := filepath.Glob("/sys/fs/cgroup/*/nomad*")
	if err != nil {
		t.Fatal(err)
	}
	for _, parent := range append(parents, "/sys/fs/cgroup/nomad.slice") {
		got["cgroups"] += tree(parent)
	}
	return got
}

// entries counts a directory's entries; none when it is not there.
func entries(dir string) int {
	list, _ := os.ReadDir(dir)
	return len(list)
}

// tree counts the directories below one; none when it is not there.
func tree(dir string) int {
	count := 0
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			count++
		}
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("a walk that returns no errors returned %v", err))
	}
	return count
}
