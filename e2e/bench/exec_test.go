//go:build bench

package bench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/shim"
)

// BenchmarkExec measures one more process in a running container, from asking for it to its exit status: what a script check
// costs each time.
func BenchmarkExec(b *testing.B) {
	hideUnified(b)
	dir := openDir(b)
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	container := benchContainer(drivertest.RootFS(b))
	container.Filters = filepath.Join(dir, "filters")
	container.Process.Args = []string{"/bin/probe", "sleep", "3600"}
	container.ID = fmt.Sprintf("exec-%d", os.Getpid())
	client, err := shim.Start(b.Context(), shimPath, filepath.Join(dir, "task"), container)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := shim.Destroy(context.WithoutCancel(b.Context()), filepath.Join(dir, "task")); err != nil {
			b.Error(err)
		}
	})
	names := []string{"drover-shim"}
	peers := map[string]func() error{"drover-shim": func() error {
		exit, err := client.Exec(b.Context(), shim.ExecRequest{Process: driver.Process{Args: []string{"/bin/probe", "exit", "0"}}})
		if err == nil && exit.Code != 0 {
			err = fmt.Errorf("exit status %d", exit.Code)
		}
		return err
	}}
	for _, peer := range []string{"runc", "crun"} {
		v := version(b.Context(), peer)
		if v == "" {
			b.Logf("%s is not installed", peer)
			continue
		}
		id := fmt.Sprintf("exec-%s-%d", peer, os.Getpid())
		run := exec.CommandContext(b.Context(), peer, "run", "--detach", "--bundle", ociBundle(b, container), id)
		if err := run.Run(); err != nil { // without pipes, which the container would hold open
			b.Fatalf("%s: %v", peer, err)
		}
		b.Cleanup(func() {
			if err := quiet(context.WithoutCancel(b.Context()), peer, "delete", "--force", id); err != nil {
				b.Error(err)
			}
		})
		names = append(names, v)
		peers[v] = func() error { return quiet(b.Context(), peer, "exec", id, "/bin/probe", "exit", "0") }
	}
	all := map[string]samples{}
	for round := range containerRounds {
		for _, name := range names {
			for range containerEach {
				began := time.Now()
				if err := peers[name](); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
				if round > 0 {
					all[name] = append(all[name], time.Since(began))
				}
			}
		}
	}
	report(b, "exec", "exec: one more process in a running container", names, all)
	compare(b, names, all)
}
