package plugin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/driver/task"
)

// Jobs of the docker driver are written in all of these ways.
func TestStorage_mounts(t *testing.T) {
	var c taskConfig
	parse(t, taskConfigSpec(), `
image = "i"
rootfs_owner = "user"
readonly_rootfs = true
mount {
  type     = "bind"
  target   = "/conf"
  source   = "local/conf"
  readonly = true
  bind_options { propagation = "rslave" }
}
mount {
  type   = "tmpfs"
  target = "/cache"
  tmpfs_options {
    size = 1000
    mode = 511
  }
}
mounts {
  type   = "bind"
  target = "/b"
  source = "local/b"
}
volumes = ["/srv/a:/a:ro"]
tmpfs = ["/run:size=1m"]
devices {
  host_path          = "/dev/fuse"
  container_path     = "/dev/f"
  cgroup_permissions = "rw"
}
`, &c)
	got, err := c.wish("")
	if err != nil {
		t.Fatal(err)
	}
	want := task.StorageWish{RootFSOwner: task.OwnerUser, Mounts: []task.MountWish{
		{Field: "mount", Type: "bind", Source: "local/conf", Target: "/conf", ReadOnly: true, Propagation: "rslave"},
		{Field: "mount", Type: "tmpfs", Target: "/cache", SizeBytes: 1000, Mode: 0o777},
		{Field: "mount", Type: "bind", Source: "local/b", Target: "/b"},
		{Field: "volumes", Type: "bind", Source: "/srv/a", Target: "/a", ReadOnly: true, Create: true},
		{Field: "tmpfs", Type: "tmpfs", Target: "/run", SizeBytes: 1 << 20},
	}, Devices: []task.DeviceWish{{HostPath: "/dev/fuse", ContainerPath: "/dev/f", Access: "rw"}}}
	if diff := cmp.Diff(want, got.Storage); diff != "" || !got.ReadOnlyRootFS {
		t.Error(diff)
	}
}

func TestStorage_refuses(t *testing.T) {
	for config, want := range map[string]string{
		`volumes = ["/data"]`: "SOURCE:TARGET",
		`tmpfs = ["/a:suid"]`: "suid",
		`mount {
			type = "tmpfs"
			target = "/a"
			tmpfs_options { mode = 4096 }
		}`: "4096",
	} {
		var c taskConfig
		parse(t, taskConfigSpec(), "image = \"i\"\n"+config, &c)
		if _, err := c.wish(""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", config, err)
		}
	}
}
