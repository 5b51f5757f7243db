//go:build root

package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/shim"
)

// BenchmarkStart is a container's whole life: start, end, destroy.
func BenchmarkStart(b *testing.B) {
	layers := drivertest.RootFS(b)
	dir := b.TempDir()
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(path, 0o711); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := serial.Add(1)
		task := filepath.Join(dir, fmt.Sprint(n))
		client, err := shim.Start(b.Context(), program, task, driver.Container{
			ID: fmt.Sprintf("bench-%d-%d", os.Getpid(), n), Hostname: "box", RootFS: driver.RootFS{Layers: layers},
			IDs: driver.IDRange{Host: 1_000_000, Size: 65536}, Limits: driver.Limits{PIDs: 64},
			Process: driver.Process{Args: []string{"/bin/probe", "echo"}, User: "vcap"},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := client.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		_ = client.Close()
		if err := shim.Destroy(b.Context(), task); err != nil {
			b.Fatal(err)
		}
	}
}
