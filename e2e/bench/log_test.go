//go:build bench

package bench_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver/drivertest"
)

// BenchmarkLogPipe has a container write 50 MiB to its standard output, in lines of 64 bytes, each a write of its own, and in
// one process beside it as the floor. A reader takes all from the fifo, as Nomad's log collector does. Not a byte may be lost.
func BenchmarkLogPipe(b *testing.B) {
	const size = 50 << 20
	dir := openDir(b)
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	logs := filepath.Join(dir, "alloc", "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		b.Fatal(err)
	}
	fifo := filepath.Join(logs, "out.fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		b.Fatal(err)
	}
	container := benchContainer(drivertest.RootFS(b))
	container.Filters = filepath.Join(dir, "filters")
	container.Process.Args = []string{"/bin/probe", "flood", strconv.Itoa(size)}
	container.Stdout = fifo
	container.Limits.CPUShares = 1024
	probe := filepath.Join(container.RootFS.Layers[0].Dir, "bin/probe")
	names := []string{"drover-shim", "the program alone"}
	runs := map[string]func(n int) error{
		"drover-shim": func(n int) error {
			id := fmt.Sprintf("log-%d-%d", os.Getpid(), n)
			return startShim(b.Context(), shimPath, filepath.Join(dir, id), id, container)
		},
		"the program alone": func(int) error {
			out, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer func() { _ = out.Close() }()
			cmd := exec.CommandContext(context.WithoutCancel(b.Context()), probe, "flood", strconv.Itoa(size))
			cmd.Stdout = out
			return cmd.Run()
		},
	}
	all := map[string]samples{}
	for round := range 4 {
		for _, name := range names {
			began := time.Now()
			read := make(chan int64, 1)
			go func() {
				in, err := os.OpenFile(fifo, os.O_RDONLY, 0)
				if err != nil {
					b.Error(err)
				}
				n, _ := io.Copy(io.Discard, in)
				_ = in.Close()
				read <- n
			}()
			if err := runs[name](round); err != nil {
				b.Fatalf("%s: %v", name, err)
			}
			if got := <-read; got != size {
				b.Errorf("%s: %d of %d bytes came", name, got, size)
			}
			if round > 0 {
				all[name] = append(all[name], time.Since(began))
			}
		}
	}
	report(b, "pipe", "log-pipe: 50 MiB of lines through the task's fifo, start and end included", names, all)
	compare(b, names, all)
}
