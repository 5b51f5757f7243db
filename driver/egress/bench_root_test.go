//go:build root

package egress

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// BenchmarkApply is a table's way into the kernel, each time in a new network namespace.
func BenchmarkApply(b *testing.B) {
	metadata := driver.Egress{Deny: []driver.EgressRule{Metadata()}}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and no unlock: the thread ends with its namespace
		var err error
		for err == nil && b.Loop() {
			b.StopTimer()
			err = unix.Unshare(unix.CLONE_NEWNET)
			b.StartTimer()
			if err == nil {
				err = Apply("bench", driver.IDRange{Host: 1 << 20, Size: 1 << 16}, metadata)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
