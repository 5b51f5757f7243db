//go:build root

package keeper_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/quota"
	"drover/driver/shim"
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
func (b *box) local() { b.localIn(b.t.TempDir()) }

func (b *box) localIn(base string) string {
	b.t.Helper()
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

// TestDisk_project: where the file system has project quotas, writes fail, nobody is killed, and nothing stays.
func TestDisk_project(t *testing.T) {
	for kind, mkfs := range map[string][]string{"ext4": drivertest.ProjectExt4(), "xfs": drivertest.ProjectXFS()} {
		t.Run(kind, func(t *testing.T) { testProject(t, kind, mkfs) })
	}
}

func testProject(t *testing.T, kind string, mkfs []string) {
	t.Helper()
	const id = 5001
	disk := drivertest.FileSystem(t, kind, "prjquota", mkfs...)
	b := newBox(t, "sleep", "600")
	b.dir = filepath.Join(disk, "task")
	b.wish.Disk = driver.Disk{Bytes: 16 * mib, Inodes: 400, Project: id}
	local := b.localIn(disk)
	b.start()
	t.Cleanup(func() { b.destroy() }) // before the file system is unmounted
	for _, args := range [][]string{
		{"fill", "/tmp/f", "40"}, {"fill", "/local/f", "40"}, {"litter", "/tmp/d", "500"}, {"hidden", "/tmp/h", "40"},
	} {
		out := b.refused(args...)
		if !strings.Contains(out, "quota exceeded") && !strings.Contains(out, "no space left") {
			t.Errorf("%q: %s", args, out)
		}
	}
	if out := b.refused("project", "/tmp/f", "0"); !strings.Contains(out, "invalid argument") && !strings.Contains(out, "not permitted") {
		t.Errorf("leaving the project: %s", out)
	}
	if !b.client.Running() {
		t.Error("the container has ended")
	}
	if used, limit, err := quota.Usage(disk, id); err != nil || limit.Bytes != 16*mib || used.Bytes < 14*mib || used.Bytes > 16*mib {
		t.Errorf("used %+v of %+v, %v", used, limit, err)
	}
	b.destroy()
	if err := os.RemoveAll(local); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) { // xfs frees inodes a moment later
		used, limit, err := quota.Usage(disk, id)
		return used == quota.Amount{} && limit == quota.Amount{} && err == nil, fmt.Sprint(used, limit, err)
	})
}

// refused runs a command in the container that is to fail, and returns what it said.
func (b *box) refused(args ...string) string {
	b.t.Helper()
	var out bytes.Buffer
	exit, err := b.client.Exec(b.t.Context(), shim.ExecRequest{
		Process: driver.Process{Args: append([]string{"/bin/probe"}, args...), User: "vcap"}, Stdout: &out, Stderr: &out,
	})
	if err != nil || exit.Code == 0 {
		b.t.Fatalf("%q: exit %+v, error %v, output %s", args, exit, err, &out)
	}
	return out.String()
}
