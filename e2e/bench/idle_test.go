//go:build bench

package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/shim"
)

// BenchmarkIdle starts a thousand containers that wait, and tells what they cost: memory of the shims, memory of the whole node
// for each, processors while nothing happens.
func BenchmarkIdle(b *testing.B) {
	count := setting(b, "DROVER_BENCH_IDLE", 1000)
	dir := openDir(b)
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	container := benchContainer(drivertest.RootFS(b))
	container.Filters = filepath.Join(dir, "filters")
	container.Process.Args = []string{"/bin/probe", "sleep", "3600"}
	before, began := meminfo(b, "MemAvailable"), time.Now()
	var dirs []string
	b.Cleanup(func() {
		for _, d := range dirs {
			if err := shim.Destroy(context.WithoutCancel(b.Context()), d); err != nil {
				b.Error(err)
			}
		}
	})
	for n := range count {
		c := container
		c.ID = fmt.Sprintf("idle-%d-%d", os.Getpid(), n)
		c.IDs = driver.IDRange{Host: 1<<30 + uint32(n)<<16, Size: 1 << 16} //nolint:gosec // a few thousand
		dirs = append(dirs, filepath.Join(dir, c.ID))
		client, err := shim.Start(b.Context(), shimPath, dirs[n], c)
		if err != nil {
			b.Fatalf("container %d: %v", n, err)
		}
		if err := client.Close(); err != nil {
			b.Fatal(err)
		}
	}
	started := time.Since(began)
	after := meminfo(b, "MemAvailable")
	idle := time.NewTimer(10 * time.Second) // for the processors' count
	<-idle.C
	var pss, rss, private int64
	var ticks float64
	for _, d := range dirs {
		pid := shimPID(b, d)
		pss, rss = pss+smaps(b, pid, "Pss"), rss+smaps(b, pid, "Rss")
		private += smaps(b, pid, "Private_Dirty")
		ticks += cpuSeconds(b, pid)
	}
	n := int64(count)
	tell(b, "\nidle: %d containers, started one after the other in %.1f s\n", count, started.Seconds())
	tell(b, "  a shim: PSS %d KiB, RSS %d KiB, its own %d KiB (aim: PSS below 6144)\n", pss/n, rss/n, private/n)
	tell(b, "  the node: %d KiB for each container with its shim and its program\n", (before-after)/n)
	tell(b, "  all shims together have used %.1f s of processors, start included\n", ticks)
	b.ReportMetric(float64(pss/n), "shim-PSS-KiB")
	b.ReportMetric(float64((before-after)/n), "node-KiB/container")
}

func shimPID(b *testing.B, dir string) int {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "shim.json"))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), `"pid":`)
	number := strings.TrimSpace(rest)
	if at := strings.IndexAny(number, ",}"); at > 0 {
		number = number[:at]
	}
	pid, err := strconv.Atoi(number)
	if err != nil {
		b.Fatalf("%s: %v", text, err)
	}
	return pid
}

// smaps reads one sum of a process's memory, in KiB.
func smaps(b *testing.B, pid int, name string) int64 {
	b.Helper()
	return kib(b, fmt.Sprintf("/proc/%d/smaps_rollup", pid), name)
}

func meminfo(b *testing.B, name string) int64 {
	b.Helper()
	return kib(b, "/proc/meminfo", name)
}

func kib(b *testing.B, path, name string) int64 {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == name+":" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal(errors.New(path + " has no " + name))
	return 0
}

func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}
