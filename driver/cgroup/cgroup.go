// Package cgroup reads and ends control groups, on cgroup v1 (also the hybrid layout) and v2.
//
// A Group is one path below every hierarchy that the host has mounted. The package never creates the containers'
// groups (the runtime does, with their limits); it makes plain ones for the shims, tells what a group uses, kills what
// is in it and removes it. What it parses, it parses in pure functions over the files' text.
//
// Processes are killed through pidfds, and only after a second look that they are still in the group, so that a
// reused pid is never hit; process 1 and the caller itself are always refused.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Root is where hosts mount their control groups.
const Root = "/sys/fs/cgroup"

// ErrBusy is wrapped when a group still holds processes after the time given to end them.
var ErrBusy = errors.New("cgroup still holds processes")

// controllers of cgroup v1 in which a container or a shim has a directory of its own. cpuset is left out: Nomad keeps
// one shared directory there.
func controllers() []string {
	return []string{"freezer", "memory", "cpu", "cpuacct", "pids", "devices", "blkio", "net_cls", "net_prio", "hugetlb", "perf_event", "rdma", "misc"}
}

// V2 reports whether the host has the unified hierarchy alone.
func V2() bool {
	var stat unix.Statfs_t
	return unix.Statfs(Root, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC
}

// Group is one control group path in all hierarchies.
type Group struct {
	path   string
	v2     bool
	root   string
	mounts []string // of the hierarchies, each once; v1 only
}

// At returns the group at a path relative to the hierarchies' mount points, such as "/nomad/<scope>".
func At(path string) (Group, error) {
	clean := filepath.Clean("/" + path)
	if path == "" || clean == "/" || slices.Contains(strings.Split(path, "/"), "..") {
		return Group{}, fmt.Errorf("cgroup path %q: want a path below the root", path)
	}
	g := Group{path: clean, v2: V2(), root: Root}
	if !g.v2 {
		g.mounts = mounted()
	}
	return g, nil
}

// Path returns the group's path relative to the mount points.
func (g Group) Path() string { return g.path }

// Dirs returns the group's directories that exist.
func (g Group) Dirs() []string {
	var dirs []string
	for _, dir := range g.candidates() {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (g Group) candidates() []string {
	if g.v2 {
		return []string{filepath.Join(g.root, g.path)}
	}
	dirs := make([]string, len(g.mounts))
	for n, mount := range g.mounts {
		dirs[n] = filepath.Join(mount, g.path)
	}
	return dirs
}

var found atomic.Pointer[[]string]

// mounted is where this host has its hierarchies. They are looked for once, and do not move while we run.
func mounted() []string {
	if known := found.Load(); known != nil {
		return *known
	}
	mounts := hierarchies(Root)
	if len(mounts) > 0 {
		found.Store(&mounts)
	}
	return mounts
}

// hierarchies lists where cgroup v1's hierarchies are mounted; several controllers may share one.
func hierarchies(root string) []string {
	var mounts []string
	for _, name := range append(controllers(), "cpuset", "systemd", "unified") {
		mount, err := filepath.EvalSymlinks(filepath.Join(root, name))
		if err == nil && !slices.Contains(mounts, mount) {
			mounts = append(mounts, mount)
		}
	}
	return mounts
}

func (g Group) dir(controller string) string {
	if g.v2 {
		return filepath.Join(g.root, g.path)
	}
	return filepath.Join(g.root, controller, g.path)
}

// Join makes the group, without limits, and moves a process into it. On v1 only the hierarchies that account for
// processes are used.
func (g Group) Join(pid int) error {
	names := []string{"memory", "cpu", "cpuacct", "pids", "freezer"}
	if g.v2 {
		names = []string{""}
	}
	joined := 0
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(g.root, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := enter(g.dir(name), pid); err != nil {
			return err
		}
		joined++
	}
	if joined == 0 {
		return fmt.Errorf("join cgroup %s: no hierarchy of control groups is mounted at %s", g.path, g.root)
	}
	return nil
}

// enter makes a directory and moves a process into it. Another's RemoveParent may take a parent away in between.
func enter(dir string, pid int) error {
	const tries = 100
	for n := 1; ; n++ {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = AddPID(dir, pid)
		}
		if err == nil || n == tries || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// RemoveParent removes the group's parent where nothing else is left in it.
func (g Group) RemoveParent() {
	for _, dir := range g.candidates() {
		_ = unix.Rmdir(filepath.Dir(dir)) // refused when there is something in it
	}
}

// AddPID moves a process into the group at an absolute directory.
func AddPID(dir string, pid int) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600)
	if err != nil {
		return fmt.Errorf("move process %d into cgroup: %w", pid, err)
	}
	return nil
}

// SetCPUs says which processors the members of a cpuset cgroup may use. Nomad leaves that of a task with reserved cores to
// its driver, and until it is said the kernel takes no member.
func SetCPUs(dir, list string) error {
	if err := os.WriteFile(filepath.Join(dir, "cpuset.cpus"), []byte(list), 0o600); err != nil {
		return fmt.Errorf("give cores %s to the task: %w", list, err)
	}
	return nil
}

// PIDs lists the processes in the group and the groups below it, in no order.
func (g Group) PIDs() ([]int, error) {
	found := map[int]bool{}
	for _, dir := range g.candidates() {
		if !g.v2 && strings.HasPrefix(dir, filepath.Join(g.root, "cpuset")+"/") {
			continue
		}
		dirs, err := tree(dir)
		for _, d := range dirs {
			err = errors.Join(err, readPIDs(filepath.Join(d, "cgroup.procs"), found))
		}
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	return pids, nil
}

// tree lists a group's directory and those below it, from the top; a group that is not there has none.
func tree(top string) ([]string, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(top, &stat); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, &os.PathError{Op: "lstat", Path: top, Err: err}
	}
	if stat.Nlink <= 2 { // no directory but itself
		return []string{top}, nil
	}
	var dirs []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	return dirs, err
}

func readPIDs(path string, into map[int]bool) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if pid > 0 { // 0 is a process of another pid namespace than ours
			into[pid] = true
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// Signal sends a signal to every process of the group, save those that skip names.
func (g Group) Signal(sig unix.Signal, skip ...int) error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	skip = append(skip, 1, os.Getpid())
	var errs []error
	for _, pid := range pids {
		if slices.Contains(skip, pid) {
			continue
		}
		errs = append(errs, g.signalOne(pid, sig))
	}
	return errors.Join(errs...)
}

// signalOne holds the process by a pidfd, checks that it still is in the group, and then signals it.
func (g Group) signalOne(pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !g.holds(pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}

func (g Group) holds(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[2] == g.path || strings.HasPrefix(parts[2], g.path+"/")) {
			return true
		}
	}
	return false
}

// Kill ends every process of the group and waits until they are gone, at most until the context's end.
func (g Group) Kill(ctx context.Context) error {
	var again retry
	for {
		pids, err := g.PIDs()
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() })
		if len(pids) == 0 {
			return nil
		}
		if slices.Contains(pids, 1) {
			return fmt.Errorf("kill cgroup %s: it holds process 1", g.path)
		}
		if err := g.killOnce(); err != nil {
			return err
		}
		if !again.wait(ctx) {
			return fmt.Errorf("kill cgroup %s: %w: %v", g.path, ErrBusy, pids)
		}
	}
}

func (g Group) killOnce() error {
	if g.v2 {
		err := os.WriteFile(filepath.Join(g.dir(""), "cgroup.kill"), []byte("1"), 0o600)
		if err == nil {
			return nil
		}
	}
	if !g.v2 { // a frozen process dies only once it is thawed
		_ = os.WriteFile(filepath.Join(g.dir("freezer"), "freezer.state"), []byte("THAWED"), 0o600)
	}
	return g.Signal(unix.SIGKILL)
}

// Remove removes the group's directories, and those below them; that they are gone already is fine.
func (g Group) Remove() error {
	var errs []error
	for _, dir := range g.candidates() {
		dirs, err := tree(dir)
		errs = append(errs, err)
		for _, below := range slices.Backward(dirs) {
			if err := unix.Rmdir(below); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", below, err))
			}
		}
	}
	return errors.Join(errs...)
}

// RemoveSoon removes the group as Remove does, and tries again while the kernel still lets go of its last processes.
func (g Group) RemoveSoon(ctx context.Context) error {
	var again retry
	for {
		err := g.Remove()
		if err == nil || !again.wait(ctx) {
			return err
		}
	}
}

// retry waits between tries, ever longer: the kernel is through with most processes in a fraction of a millisecond, and
// tells nobody.
type retry struct{ last time.Duration }

// wait reports false when the context ended first.
func (r *retry) wait(ctx context.Context) bool {
	r.last = min(max(2*r.last, 100*time.Microsecond), 5*time.Millisecond)
	timer := time.NewTimer(r.last)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
