package task

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/driver/shim"
)

func TestForgotten(t *testing.T) {
	for _, row := range []struct {
		promise     string
		remains     shim.Remains
		interrupted bool
		allocDir    bool
		removed     bool
	}{
		{"ends what runs for an allocation that is gone", shim.Remains{Running: true}, false, false, true},
		{"removes what ran for an allocation that is gone", shim.Remains{}, false, false, true},
		{"leaves what runs for an allocation that is there", shim.Remains{Running: true}, false, true, false},
		{"leaves an exit that an agent may still ask for", shim.Remains{}, false, true, false},
		{"removes what a reboot ended, also when the allocation is there", shim.Remains{Rebooted: true}, false, true, true},
		{"gives back the ids of a start that was interrupted", shim.Remains{}, true, true, true},
	} {
		t.Run(row.promise, func(t *testing.T) {
			if why := forgotten(row.remains, row.interrupted, row.allocDir); (why != "") != row.removed {
				t.Errorf("reason %q, want removed %v", why, row.removed)
			}
		})
	}
}

// TestSweep_honoursTheGrace is about ids of an interrupted start, which need no container.
func TestSweep_honoursTheGrace(t *testing.T) {
	dir := t.TempDir()
	node := testNode()
	node.StateDir, node.ImageDir = filepath.Join(dir, "state"), filepath.Join(dir, "images")
	m := New(context.Background(), node, func(Event) {}, slog.New(slog.DiscardHandler))
	if err := m.prepare(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"t-forgotten", "t-starting"} {
		if _, err := m.pool.Acquire("alloc-"+id, id); err != nil {
			t.Fatal(err)
		}
	}
	started := m.starts("t-starting")
	seen, now := map[string]time.Time{}, time.Now()
	sweep := func(at time.Duration, want ...string) {
		t.Helper()
		if err := m.sweepOnce(t.Context(), seen, now.Add(at)); err != nil {
			t.Fatal(err)
		}
		left, err := m.containers()
		if err != nil || len(left) != len(want) {
			t.Errorf("after %s there are %v, want %v (%v)", at, left, want, err)
		}
	}
	sweep(0, "t-forgotten", "t-starting")
	sweep(node.OrphanGrace-time.Second, "t-forgotten", "t-starting")
	sweep(node.OrphanGrace, "t-starting")
	started() // the grace of what was started begins anew
	sweep(node.OrphanGrace+time.Second, "t-starting")
	sweep(3*node.OrphanGrace, []string{}...)
	if ranges, err := os.ReadDir(filepath.Join(node.StateDir, "ranges")); err != nil || len(ranges) > 0 {
		t.Errorf("ranges are left: %v, %v", ranges, err)
	}
}
