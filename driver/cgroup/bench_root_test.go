//go:build root

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkThousand measures one reading of a thousand groups, which is what a node with a thousand tasks does in each
// of Nomad's collection intervals (one second unless told otherwise): cpu-ms is the processor time that it takes.
func BenchmarkThousand(b *testing.B) {
	const many = 1000
	groups := make([]Group, many)
	for n := range groups {
		g, err := At(fmt.Sprintf("/drover-bench/%d", n))
		if err != nil {
			b.Fatal(err)
		}
		for _, controller := range []string{"memory", "cpu", "cpuacct", "pids", "freezer"} {
			if err := os.MkdirAll(g.dir(controller), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		groups[n] = g
	}
	b.Cleanup(func() {
		for _, g := range groups {
			if err := g.Remove(); err != nil {
				b.Error(err)
			}
		}
		groups[0].RemoveParent()
	})
	// Something is to be counted in each: a process that was in it and has ended leaves charges behind.
	for _, g := range groups[:10] {
		if err := os.WriteFile(filepath.Join(g.dir("memory"), "cgroup.procs"), []byte(fmt.Sprint(os.Getpid())), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	kept, opened := make([]func() (Usage, error), many), make([]func() (Usage, error), many)
	for n, g := range groups {
		m, err := g.Meter()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(m.Close)
		kept[n], opened[n] = m.Read, g.Usage
	}
	b.Run("files kept open", func(b *testing.B) { measure(b, kept) })
	b.Run("files opened each time", func(b *testing.B) { measure(b, opened) })
	_ = os.WriteFile(Root+"/memory/cgroup.procs", []byte(fmt.Sprint(os.Getpid())), 0o600) // out again
}

func measure(b *testing.B, read []func() (Usage, error)) {
	b.Helper()
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		for _, one := range read {
			if _, err := one(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
