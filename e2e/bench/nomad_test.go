//go:build bench

package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// BenchmarkNomadStart measures what Nomad says of a task: from Received to Started, in one agent, the image cached.
// exec's chroot holds the one program only; by default it would link half of the host.
func BenchmarkNomadStart(b *testing.B) {
	dir := openDir(b)
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		b.Fatal(err)
	}
	build(b, plugins, "drover/cmd/nomad-driver-drover")
	build(b, plugins, "drover/cmd/drover-shim")
	probe := drivertest.BuildProgram(b, drivertest.ProbePackage)
	cluster, err := agent.Start(b.Context(), agent.Config{
		Dir: filepath.Join(dir, "agent"), PluginDir: plugins, NoConsul: true, LogLevel: "WARN",
		Plugins: map[string]string{"nomad-driver-drover": fmt.Sprintf("state_dir = %q\nimage_dir = %q\n", dir+"/state", dir+"/images")},
		Extra: fmt.Sprintf("plugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n"+
			"client {\n  gc_max_allocs = 500\n  chroot_env {\n    %q = \"/bin/probe\"\n  }\n}\n", probe),
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
	image := drivertest.Push(b, drivertest.Serve(b), "bench/probe:1", drivertest.RootFSImage(b, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}))
	configs := map[string]map[string]any{
		"drover":   {"image": image, "args": []string{"exit", "0"}},
		"exec":     {"command": "/bin/probe", "args": []string{"exit", "0"}},
		"raw_exec": {"command": probe, "args": []string{"exit", "0"}},
	}
	names := []string{"drover", "exec", "raw_exec"}
	all := map[string]samples{}
	for round := range nomadRounds {
		for _, name := range names {
			for n := range nomadEach {
				took := runJob(b, cluster, fmt.Sprintf("%s-%d-%d", name, round, n), name, configs[name], 1)
				if round > 0 { // the first round warms the caches
					all[name] = append(all[name], took...)
				}
			}
		}
	}
	report(b, "one", "nomad-start: Received to Started, one task at a time", names, all)
	many := map[string]samples{}
	for _, name := range names {
		began := time.Now()
		runJob(b, cluster, name+"-many", name, configs[name], manyAllocs)
		many[name] = samples{time.Since(began)}
	}
	report(b, "many", fmt.Sprintf("nomad-start: %d allocations of one job, registered to all ended", manyAllocs), names, many)
}

// runJob runs a batch job to its end and returns how long each of its tasks took from Received to Started.
func runJob(b *testing.B, cluster *agent.Cluster, id, driverName string, config map[string]any, count int) samples {
	b.Helper()
	task := nomad.NewTask("main", driverName).Require(&nomad.Resources{CPU: new(20), MemoryMB: new(32)})
	task.Config = config
	task.LogConfig = &nomad.LogConfig{MaxFiles: new(1), MaxFileSizeMB: new(1)}
	group := nomad.NewTaskGroup("g", count).AddTask(task)
	group.EphemeralDisk = &nomad.EphemeralDisk{SizeMB: new(10)}
	job := nomad.NewBatchJob(id, id, "global", 50).AddTaskGroup(group)
	if _, _, err := cluster.Nomad.Jobs().Register(job, nil); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		allocs, _, err := cluster.Nomad.Jobs().Allocations(id, true, nil)
		if err != nil {
			b.Fatal(err)
		}
		took := ended(b, allocs)
		if len(took) == count {
			if _, _, err := cluster.Nomad.Jobs().Deregister(id, true, nil); err != nil {
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

// ended returns the times of those tasks that have ended, all of them well.
func ended(b *testing.B, allocs []*nomad.AllocationListStub) samples {
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
		took = append(took, startTime(state))
	}
	return took
}

func startTime(state *nomad.TaskState) time.Duration {
	var received, started int64
	for _, e := range state.Events {
		switch e.Type {
		case nomad.TaskReceived:
			received = e.Time
		case nomad.TaskStarted:
			started = e.Time
		}
	}
	return time.Duration(started - received)
}
