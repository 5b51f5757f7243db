//go:build e2e

// Package e2e_test tries the programs together, on real Nomad and Consul agents.
package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	nomad "github.com/hashicorp/nomad/api"
	"golang.org/x/sys/unix"

	"drover/driver/drivertest"
	"drover/e2e/agent"
	"drover/e2e/plugin"
)

// driverNode is a Nomad agent with the real plugin, for the tests of the driver.
type driverNode struct {
	cluster  *agent.Cluster
	dir      string
	plugin   string
	shim     string
	registry string
	// allocs are the ids of the allocations that were started.
	allocs []string
}

const (
	pluginName = "nomad-driver-drover"
	// canary is put where secrets are, and must not be seen in events and logs.
	canary = "hunter2"
)

// startDriverNode builds plugin and shim and starts an agent with them. When the test ends it makes sure that nothing
// is left on the machine. Images are kept on a file system of imageMB. The options are those of the plugin and the agent.
func startDriverNode(t *testing.T, imageMB int, options string, agentOptions ...string) *driverNode {
	t.Helper()
	return startDriverNodeWith(t, imageMB, nil, options, agentOptions...)
}

// startDriverNodeWith is startDriverNode on a node that has other plugins, too.
func startDriverNodeWith(t *testing.T, imageMB int, plugins []string, options string, agentOptions ...string) *driverNode {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // a container's root must be able to walk through
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	n := &driverNode{dir: dir, plugin: filepath.Join(dir, "plugins", pluginName), shim: filepath.Join(dir, "plugins", "drover-shim")}
	n.registry = drivertest.Serve(t)
	n.build(t)
	for _, plugin := range plugins {
		if err := os.Rename(plugin, filepath.Join(filepath.Dir(n.plugin), filepath.Base(plugin))); err != nil {
			t.Fatal(err)
		}
	}
	n.mountImages(t, imageMB)
	writeNetwork(t, filepath.Join(dir, "agent", "cni"))
	var err error
	n.cluster, err = agent.Start(t.Context(), agent.Config{
		Dir: filepath.Join(dir, "agent"), PluginDir: filepath.Join(dir, "plugins"), NoConsul: true, LogLevel: "DEBUG",
		Plugins: map[string]string{pluginName: fmt.Sprintf("state_dir = %q\nimage_dir = %q\n%s", n.stateDir(), n.imageDir(), options)},
		Extra:   "telemetry {\n  publish_allocation_metrics = true\n}\nplugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n" + strings.Join(agentOptions, "\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *driverNode) stateDir() string { return filepath.Join(n.dir, "state") }
func (n *driverNode) imageDir() string { return filepath.Join(n.dir, "images") }

// build makes the two programs as `make build` does.
func (n *driverNode) build(t *testing.T) {
	t.Helper()
	for _, program := range []struct {
		cgo  string
		args []string
	}{
		{"0", []string{"-o", n.plugin, "drover/cmd/nomad-driver-drover"}},
		{"1", []string{"-tags", "seccomp,osusergo,netgo,static_build", "-ldflags", "-linkmode external -extldflags -static", "-o", n.shim, "drover/cmd/drover-shim"}},
	} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath"}, program.args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+program.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program.args[len(program.args)-1], err, out)
		}
	}
}

func (n *driverNode) mountImages(t *testing.T, mb int) {
	t.Helper()
	if err := os.Mkdir(n.imageDir(), 0o711); err != nil {
		t.Fatal(err)
	}
	// A disk image, and no tmpfs: kernels before 6.3 map no ids there.
	disk := n.imageDir() + ".ext4"
	for _, args := range [][]string{
		{"truncate", "-s", fmt.Sprintf("%dM", mb), disk},
		{"mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", disk},
		{"mount", "-o", "loop", disk, n.imageDir()},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(n.imageDir(), 0); err != nil {
			t.Errorf("unmount the image directory: %v", err)
		}
	})
}

// stop ends the agent with all jobs and checks that nothing is left.
func (n *driverNode) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if t.Failed() {
		n.showLog(t)
	}
	if err := n.cluster.Stop(ctx); err != nil {
		t.Error(err)
	}
	raw, err := os.ReadFile(n.cluster.NomadLog())
	if err != nil || len(raw) == 0 {
		t.Errorf("the agent's log cannot be read: %v", err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, canary) {
			t.Errorf("the agent's or the plugin's log shows a secret: %s", line)
		}
	}
	if left := n.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
}

// showLog prints what the plugin said.
func (n *driverNode) showLog(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile(n.cluster.NomadLog())
	if err != nil {
		t.Log(err)
		return
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, "[WARN]") || strings.Contains(line, "[ERROR]") || strings.Contains(line, "@module=drover") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// leftovers lists state, mounts, cgroups and processes of tasks.
func (n *driverNode) leftovers() []string {
	var left []string
	for _, pattern := range []string{"tasks/*", "ranges/*"} {
		found, _ := filepath.Glob(filepath.Join(n.stateDir(), pattern)) // the pattern is good
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.stateDir()) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	for _, alloc := range n.allocs { // other agents may run here too
		for _, pattern := range []string{"/sys/fs/cgroup/*/nomad/", "/sys/fs/cgroup/*/nomad/drover-shims/t-", "/sys/fs/cgroup/nomad.slice/*/", "/sys/fs/cgroup/nomad.slice/drover-shims.slice/t-"} {
			name := alloc
			if strings.HasSuffix(pattern, "t-") {
				name = alloc[:8]
			}
			found, _ := filepath.Glob(pattern + name + "*") // the pattern is good
			left = append(left, found...)
		}
	}
	for _, pid := range plugin.Processes(n.shim) {
		left = append(left, "shim process "+strconv.Itoa(pid))
	}
	return left
}

// push serves an image of the test's root file system and returns its reference.
func (n *driverNode) push(t *testing.T, image v1.Image, name string) string {
	t.Helper()
	return drivertest.Push(t, n.registry, name, image)
}

// taskOf makes a job of one drover task that is never restarted.
func taskOf(id, kind string, config map[string]any, change ...func(*nomad.Job, *nomad.Task)) *nomad.Job {
	task := nomad.NewTask("main", "drover").Require(&nomad.Resources{CPU: new(50), MemoryMB: new(64)})
	task.Config = config
	task.KillTimeout = new(10 * time.Second)
	group := nomad.NewTaskGroup("g", 1).AddTask(task)
	group.RestartPolicy = &nomad.RestartPolicy{Attempts: new(0), Mode: new("fail"), Interval: new(time.Hour), Delay: new(time.Second)}
	group.ReschedulePolicy = &nomad.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	group.EphemeralDisk = &nomad.EphemeralDisk{SizeMB: new(16)}
	task.LogConfig = &nomad.LogConfig{MaxFiles: new(1), MaxFileSizeMB: new(5)}
	job := nomad.NewServiceJob(id, id, "global", 50)
	if kind == nomad.JobTypeBatch {
		job = nomad.NewBatchJob(id, id, "global", 50)
	}
	job.AddTaskGroup(group)
	for _, c := range change {
		c(job, task)
	}
	return job
}

// start registers a job and returns its allocation once there is one. The job is purged with the test.
func (n *driverNode) start(t *testing.T, job *nomad.Job) *nomad.Allocation {
	t.Helper()
	if _, _, err := n.cluster.Nomad.Jobs().Register(job, nil); err != nil {
		t.Fatalf("register %s: %v", *job.ID, err)
	}
	t.Cleanup(func() { n.purge(t, *job.ID) })
	var alloc *nomad.Allocation
	eventually(t, 45*time.Second, "the job is not placed", func() (bool, string) {
		list, _, err := n.cluster.Nomad.Jobs().Allocations(*job.ID, true, nil)
		if err != nil || len(list) == 0 {
			return false, fmt.Sprint(err)
		}
		alloc, _, err = n.cluster.Nomad.Allocations().Info(list[0].ID, nil)
		return err == nil, fmt.Sprint(err)
	})
	n.allocs = append(n.allocs, alloc.ID)
	return alloc
}

func (n *driverNode) purge(t *testing.T, jobID string) {
	t.Helper()
	if _, _, err := n.cluster.Nomad.Jobs().Deregister(jobID, true, nil); err != nil {
		t.Errorf("purge %s: %v", jobID, err)
	}
}

// task returns the state of an allocation's task.
func (n *driverNode) task(alloc *nomad.Allocation) (*nomad.TaskState, error) {
	now, _, err := n.cluster.Nomad.Allocations().Info(alloc.ID, nil)
	if err != nil {
		return nil, err
	}
	for _, state := range now.TaskStates {
		return state, nil
	}
	return nil, errors.New("its task has no state yet")
}

// await waits until a task is "running" or "dead" and returns it.
func (n *driverNode) await(t *testing.T, alloc *nomad.Allocation, state string) *nomad.TaskState {
	t.Helper()
	var got *nomad.TaskState
	eventually(t, 90*time.Second, "the task is not "+state, func() (bool, string) {
		var err error
		if got, err = n.task(alloc); err != nil {
			return false, err.Error()
		}
		return got.State == state || got.State == "dead", describe(got)
	})
	if got.State != state {
		t.Fatalf("the task is not %s: %s", state, describe(got))
	}
	return got
}

func describe(s *nomad.TaskState) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, failed=%v", s.State, s.Failed)
	for _, e := range s.Events {
		fmt.Fprintf(&b, "\n    %s: %s %v", e.Type, e.DisplayMessage, e.Details)
	}
	return b.String()
}

// event returns the last event of a type.
func event(s *nomad.TaskState, kind string) *nomad.TaskEvent {
	for _, e := range slices.Backward(s.Events) {
		if e.Type == kind {
			return e
		}
	}
	return &nomad.TaskEvent{Details: map[string]string{}}
}

// taskName is the name of an allocation's only task.
func taskName(alloc *nomad.Allocation) string {
	for name := range alloc.AllocatedResources.Tasks {
		return name
	}
	return ""
}

// logs reads what a task wrote to a stream.
func (n *driverNode) logs(t *testing.T, alloc *nomad.Allocation, stream string) string {
	t.Helper()
	cancel := make(chan struct{})
	defer close(cancel)
	frames, errs := n.cluster.Nomad.AllocFS().Logs(alloc, false, taskName(alloc), stream, "start", 0, cancel, nil)
	var out bytes.Buffer
	for {
		select {
		case frame, open := <-frames:
			if !open {
				return out.String()
			}
			out.Write(frame.Data)
		case err := <-errs:
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("logs: %v", err)
			}
			return out.String()
		}
	}
}

// awaitLog waits until a stream contains a text.
func (n *driverNode) awaitLog(t *testing.T, alloc *nomad.Allocation, stream, text string) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("%s does not show %q", stream, text), func() (bool, string) {
		got := n.logs(t, alloc, stream)
		return strings.Contains(got, text), got
	})
}

// exec runs a command in a running task.
func (n *driverNode) exec(t *testing.T, alloc *nomad.Allocation, tty bool, stdin io.Reader, sizes <-chan nomad.TerminalSize, command ...string) (int, string, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	code, err := n.cluster.Nomad.Allocations().Exec(ctx, alloc, taskName(alloc), tty, command, stdin, &stdout, &stderr, sizes, nil)
	if err != nil {
		t.Fatalf("exec %v: %v (stdout %q, stderr %q)", command, err, stdout.String(), stderr.String())
	}
	return code, stdout.String(), stderr.String()
}

// eventually waits for a condition and says what was seen last.
func eventually(t *testing.T, limit time.Duration, what string, good func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, seen := good()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s after %v; last seen: %s", what, limit, seen)
		case <-ticker.C:
		}
	}
}
