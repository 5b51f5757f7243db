//go:build bench

package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/agent"
)

const (
	nomadRounds = 6
	nomadEach   = 5
	manyAllocs  = 20
)

// node is an agent with all drivers, and the same image and program for each of them.
type node struct {
	cluster *agent.Cluster
	drivers []string
	config  func(driverName string, args ...string) map[string]any
	events  map[string][]*nomad.TaskEvent // of each driver's last task
}

// startNode starts an agent. exec's chroot holds the one program only; by default it would link half of the host.
func startNode(b *testing.B) node {
	b.Helper()
	dir := openDir(b)
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		b.Fatal(err)
	}
	build(b, plugins, "drover/cmd/nomad-driver-drover")
	build(b, plugins, "drover/cmd/drover-shim")
	probe := drivertest.BuildProgram(b, drivertest.ProbePackage)
	image := drivertest.Push(b, drivertest.Serve(b), "bench/probe:1", drivertest.RootFSImage(b, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}))
	names, extra := []string{"drover", "exec", "raw_exec"}, ""
	if docker := startDocker(b); docker != nil {
		if err := docker.pull(b.Context(), image); err != nil {
			b.Fatal(err)
		}
		names = append(names, "docker")
		extra = fmt.Sprintf("plugin \"docker\" {\n  config {\n    endpoint = \"unix://%s\"\n  }\n}\n", docker.socket)
		tell(b, "\ndocker is %s\n", docker.version)
	}
	cluster, err := agent.Start(b.Context(), agent.Config{
		Dir: filepath.Join(dir, "agent"), PluginDir: plugins, NoConsul: true, LogLevel: "WARN",
		Plugins: map[string]string{"nomad-driver-drover": fmt.Sprintf("state_dir = %q\nimage_dir = %q\n", dir+"/state", dir+"/images")},
		Extra: fmt.Sprintf("plugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n"+
			"client {\n  gc_max_allocs = 500\n  chroot_env {\n    %q = \"/bin/probe\"\n  }\n}\n", probe) + extra,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := cluster.Stop(ctx); err != nil {
			b.Error(err)
		}
	})
	config := func(name string, args ...string) map[string]any {
		return map[string]map[string]any{
			"drover":   {"image": image, "args": args},
			"docker":   {"image": image, "args": args, "network_mode": "host"},
			"exec":     {"command": "/bin/probe", "args": args},
			"raw_exec": {"command": probe, "args": args},
		}[name]
	}
	return node{cluster, names, config, map[string][]*nomad.TaskEvent{}}
}

// BenchmarkNomadStart measures what Nomad says of a task: from Received to Started, in one agent, the image cached.
func BenchmarkNomadStart(b *testing.B) {
	n := startNode(b)
	all := map[string]samples{}
	for round := range setting(b, "DROVER_BENCH_NOMAD", nomadRounds) {
		for _, name := range n.drivers {
			for i := range nomadEach {
				took := n.runJob(b, fmt.Sprintf("%s-%d-%d", name, round, i), name, []string{"exit", "0"}, 1, startTime)
				if round > 0 { // the first round warms the caches
					all[name] = append(all[name], took...)
				}
			}
		}
	}
	report(b, "one", "nomad-start: Received to Started, one task at a time", n.drivers, all)
	compare(b, n.drivers, all)
	n.phases(b, "drover")
	many := map[string]samples{}
	for _, name := range n.drivers {
		began := time.Now()
		n.runJob(b, name+"-many", name, []string{"exit", "0"}, manyAllocs, startTime)
		many[name] = samples{time.Since(began)}
	}
	report(b, "many", fmt.Sprintf("nomad-start: %d allocations of one job, registered to all ended", manyAllocs), n.drivers, many)
	compare(b, n.drivers, many)
}

// phases prints, of the last task of a driver, when its events came.
func (n node) phases(b *testing.B, driverName string) {
	b.Helper()
	for _, e := range n.events[driverName] {
		tell(b, "  %8.1f ms  %s: %s\n", float64(e.Time-n.events[driverName][0].Time)/1e6, e.Type, e.DisplayMessage)
	}
}

// BenchmarkNomadLog: 50 MiB in lines of 64 bytes, from a task through Nomad's log collector to files.
func BenchmarkNomadLog(b *testing.B) {
	n := startNode(b)
	logs := map[string]samples{}
	for round := range 4 {
		for _, name := range n.drivers {
			took := n.runJob(b, fmt.Sprintf("%s-log-%d", name, round), name, []string{"flood", strconv.Itoa(50 << 20)}, 1, runTime)
			if round > 0 {
				logs[name] = append(logs[name], took...)
			}
		}
	}
	report(b, "log", "log-pipe: a task writes 50 MiB to its standard output, Started to Terminated", n.drivers, logs)
	compare(b, n.drivers, logs)
}

// runJob runs a batch job to its end and returns what is measured of each of its tasks.
func (n node) runJob(b *testing.B, id, driverName string, args []string, count int, measure func(*nomad.TaskState) time.Duration) samples {
	b.Helper()
	task := nomad.NewTask("main", driverName).Require(&nomad.Resources{CPU: new(50), MemoryMB: new(32)})
	task.Config = n.config(driverName, args...)
	task.LogConfig = &nomad.LogConfig{MaxFiles: new(2), MaxFileSizeMB: new(30)}
	group := nomad.NewTaskGroup("g", count).AddTask(task)
	group.EphemeralDisk = &nomad.EphemeralDisk{SizeMB: new(70)}
	job := nomad.NewBatchJob(id, id, "global", 50).AddTaskGroup(group)
	if _, _, err := n.cluster.Nomad.Jobs().Register(job, nil); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		allocs, _, err := n.cluster.Nomad.Jobs().Allocations(id, true, nil)
		if err != nil {
			b.Fatal(err)
		}
		took := ended(b, allocs, measure)
		if len(took) == count {
			n.events[driverName] = allocs[0].TaskStates["main"].Events
			if _, _, err := n.cluster.Nomad.Jobs().Deregister(id, true, nil); err != nil {
				b.Fatal(err)
			}
			return took
		}
		select {
		case <-ctx.Done():
			b.Fatalf("%s: %d of %d tasks ended", id, len(took), count)
		case <-ticker.C:
		}
	}
}

// ended measures those tasks that have ended, all of them well.
func ended(b *testing.B, allocs []*nomad.AllocationListStub, measure func(*nomad.TaskState) time.Duration) samples {
	b.Helper()
	var took samples
	for _, alloc := range allocs {
		state := alloc.TaskStates["main"]
		if state == nil || state.State != "dead" {
			continue
		}
		if state.Failed {
			b.Fatalf("%s failed: %v", alloc.JobID, state.Events[len(state.Events)-1].DisplayMessage)
		}
		took = append(took, measure(state))
	}
	return took
}

func startTime(state *nomad.TaskState) time.Duration {
	return between(state, nomad.TaskReceived, nomad.TaskStarted)
}

func runTime(state *nomad.TaskState) time.Duration {
	return between(state, nomad.TaskStarted, nomad.TaskTerminated)
}

func between(state *nomad.TaskState, first, last string) time.Duration {
	times := map[string]int64{}
	for _, e := range state.Events {
		times[e.Type] = e.Time
	}
	return time.Duration(times[last] - times[first])
}
