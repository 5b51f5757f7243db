package task

import (
	"strings"
	"testing"

	"drover/driver"
)

func diskNode() DiskConfig {
	return DiskConfig{Default: DefaultDisk, Max: DefaultMaxDisk, ProjectBase: DefaultProjectBase}
}

func TestDiskWish_refusesByName(t *testing.T) {
	for value, says := range map[string]string{
		"": "is not a size", "G": "is not a size", "10X": "is not a size", "1.5G": "is not a size", "1e9": "is not a size",
		"0x10": "is not a size", "ten": "is not a size", "-1": "is not a size", "-10G": "is not a size", "18446744073709551615": "is not a size",
		"9223372036854775808": "is not a size", "99999999999999999999G": "is not a size", "0": "more than zero", "-0": "more than zero",
		"unlimited": "is not a size", "1025T": "largest limit", "9223372036854775807": "largest limit", "101G": "plugin option disk.max",
	} {
		err := DiskWish{Options: map[string]string{"size": value}}.validate(Config{Disk: diskNode()})
		if err == nil || !strings.Contains(err.Error(), "storage_opt.size: ") || !strings.Contains(err.Error(), says) {
			t.Errorf("size %q: %v; want an error about %q", value, err, says)
		}
	}
	for _, value := range []string{"", "0", "-1", "many", "1000001", "1k", "18446744073709551616"} {
		err := DiskWish{Options: map[string]string{"inodes": value}}.validate(Config{Disk: diskNode()})
		if err == nil || !strings.Contains(err.Error(), "storage_opt.inodes: ") {
			t.Errorf("inodes %q: %v", value, err)
		}
	}
	if err := (DiskWish{Options: map[string]string{"speed": "1"}}).validate(Config{}); err == nil || !strings.Contains(err.Error(), "storage_opt.speed") {
		t.Errorf("an unknown option: %v", err)
	}
}

func TestApplyDisk(t *testing.T) {
	const gib = 1 << 30
	work := &driver.RunInfo{Kind: driver.KindLRP}
	for _, c := range []struct {
		name  string
		facts facts
		want  driver.Disk
		says  string
	}{
		{"the node's default", facts{}, driver.Disk{Bytes: 10 * gib, Inodes: 1_000_000}, ""},
		{"what the job says", facts{req: Request{Wish: Wish{Disk: DiskWish{Options: map[string]string{"size": "2g", "inodes": "7"}}}}},
			driver.Disk{Bytes: 2 * gib, Inodes: 7}, ""},
		{"a project", facts{project: 9}, driver.Disk{Bytes: 10 * gib, Inodes: 1_000_000, Project: 9}, ""},
		{"no limit by the operator's will", facts{node: Config{Disk: DiskConfig{Default: Unlimited, ProjectBase: 1}}}, driver.Disk{Inodes: 1_000_000}, ""},
		{"the image is taken off", facts{imageUse: 9 * gib}, driver.Disk{Bytes: gib, Inodes: 1_000_000}, ""},
		{"the image is too large", facts{imageUse: 10 * gib}, driver.Disk{}, "disk quota exceeded: the image alone takes 10 GiB of 10 GiB"},
		{"Cloud Foundry's work", facts{info: work, def: definition{diskMB: 512}}, driver.Disk{Bytes: gib / 2, Inodes: 200_000}, ""},
		{"Cloud Foundry's work without a limit has the node's", facts{info: work}, driver.Disk{Bytes: 10 * gib, Inodes: 200_000}, ""},
		{"Cloud Foundry's work with a negative limit", facts{info: work, def: definition{diskMB: -1}}, driver.Disk{}, "disk_mb: -1 must not be negative"},
		{"Cloud Foundry's work with too much", facts{info: work, def: definition{diskMB: 1<<31 - 1}}, driver.Disk{}, "disk_mb: 2048 TiB is more than this node's operator allows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.facts
			if f.node.Disk == (DiskConfig{}) {
				f.node.Disk = diskNode()
			}
			got := driver.Container{Mounts: []driver.Mount{{Target: "/alloc"}, {Target: "/local"}}}
			err := f.applyDisk(&got)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v; want %q", err, c.says)
				}
				return
			}
			if err != nil || got.Disk != c.want || got.Mounts[0].Counted || !got.Mounts[1].Counted {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestCounted: what of a root file system is part of a task's use of disk.
func TestCounted(t *testing.T) {
	layers := []driver.Layer{{Dir: "/stack"}, {Dir: "/droplet"}}
	for _, c := range []struct {
		name, scope string
		work        bool
		stack, want int
	}{
		{"a job", "", false, 0, 0},
		{"a job where all counts", ScopeTotal, false, 1, 2},
		{"a droplet on a stack", "", true, 1, 1},
		{"a Docker image of Cloud Foundry", "", true, 0, 2},
		{"Cloud Foundry where only writes count", ScopeExclusive, true, 1, 0},
	} {
		f := facts{layers: layers, node: Config{Disk: DiskConfig{Scope: c.scope}}}
		if c.work {
			f.info = &driver.RunInfo{}
		}
		if got := f.counted(c.stack); len(got) != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
