//go:build root

package keeper_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

const mib = 1 << 20

// diskEvents returns what a task's events say about disk space, as one text.
func (b *box) diskEvents() string {
	b.t.Helper()
	events, err := b.client.Events(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var list []string
	for e := range events {
		if e.Phase == driver.PhaseDisk {
			list = append(list, e.Message)
		}
	}
	return strings.Join(list, "\n")
}

// local gives a box the directory of its task as /local, which counts.
func (b *box) local() string {
	b.t.Helper()
	base := b.t.TempDir()
	dir := filepath.Join(base, "local")
	if err := os.Mkdir(dir, 0o777); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		b.t.Fatal(err)
	}
	b.wish.Mounts = append(b.wish.Mounts, driver.Mount{Source: dir, Base: base, Target: "/local", IDMapped: true, Counted: true})
	return dir
}

// TestDisk_measured: what exceeds its limit of disk space is killed, and told why; neighbours go on.
func TestDisk_measured(t *testing.T) {
	neighbour := newBox(t, "then", "--", "fill", "/tmp/f", "4", "--", "sleep", "600")
	neighbour.wish.Disk = driver.Disk{Bytes: 64 * mib, Inodes: 1000}
	neighbour.start()
	neighbour.sees(neighbour.out, "filled")
	for _, c := range []struct {
		name, why string
		disk      driver.Disk
		args      []string
	}{
		{"bytes in the root file system", "of 16 MiB", driver.Disk{Bytes: 16 * mib}, []string{"fill", "/tmp/f", "40"}},
		{"bytes in /local", "of 16 MiB", driver.Disk{Bytes: 16 * mib}, []string{"fill", "/local/f", "40"}},
		{"bytes of a file without a name", "of 16 MiB", driver.Disk{Bytes: 16 * mib}, []string{"hidden", "/tmp/f", "40"}},
		{"files", "of 1000 files", driver.Disk{Bytes: 64 * mib, Inodes: 1000}, []string{"litter", "/tmp/d", "3000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, append(append([]string{"then", "--"}, c.args...), "--", "sleep", "600")...)
			b.wish.Disk = c.disk
			b.local()
			b.start()
			exit := b.wait()
			if exit.Code != 137 || exit.OOMKilled || !strings.HasPrefix(exit.DiskExceeded, "disk quota exceeded: used ") ||
				!strings.HasSuffix(exit.DiskExceeded, c.why) || exit.Reason != "" {
				t.Errorf("exit is %+v", exit)
			}
			if text := b.diskEvents(); !strings.Contains(text, "Disk quota exceeded: used ") || !strings.Contains(text, "the task is killed") {
				t.Errorf("events say %q", text)
			}
		})
	}
	if !neighbour.client.Running() {
		t.Error("the neighbour has ended")
	}
}

// TestDisk_memory: what is in /dev/shm is memory.
func TestDisk_memory(t *testing.T) {
	b := newBox(t, "then", "--", "fill", "/dev/shm/f", "30", "--", "hidden", "/tmp/f", "14")
	b.wish.Disk = driver.Disk{Bytes: 16 * mib}
	b.start()
	b.sees(b.out, "hidden")
	eventually(t, func() (bool, string) {
		text, err := os.ReadFile(filepath.Join(b.dir, "events.jsonl"))
		return err == nil && strings.Contains(string(text), "Disk quota nearly used up: 14"), string(text)
	})
	if !b.client.Running() {
		t.Error("the container has ended")
	}
}

func TestDisk_work(t *testing.T) {
	b := taskBox(t, models.TaskDefinition{
		LogSource: "APP/TASK/x", Action: models.WrapAction(probe("APP", "then", "--", "fill", "/tmp/f", "40", "--", "sleep", "600")),
	})
	b.wish.Disk = driver.Disk{Bytes: 16 * mib}
	b.start()
	if exit := b.wait(); exit.Code != 137 || !strings.Contains(exit.Reason, " (disk quota exceeded: used ") {
		t.Errorf("exit is %+v", exit)
	}
}

// TestDisk_orphan: whoever waits for a container whose shim was killed measures in the shim's place.
func TestDisk_orphan(t *testing.T) {
	b := newBox(t, "sleep", "600")
	b.wish.Disk = driver.Disk{Bytes: 16 * mib}
	b.local()
	b.start()
	b.killShim()
	b.exec("fill", "/local/f", "10")
	b.exec("fill", "/tmp/f", "10")
	if exit := b.wait(); exit.Code != 137 || !strings.HasPrefix(exit.DiskExceeded, "disk quota exceeded: used ") {
		t.Errorf("exit is %+v", exit)
	}
}
