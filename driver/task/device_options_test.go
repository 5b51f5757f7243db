package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func TestDeviceWish_validate(t *testing.T) {
	node := testNode()
	node.Storage.AllowDevices = []string{"/dev/fuse", "/dev/dri/*", "nvidia.com/gpu=*"}
	for _, d := range []DeviceWish{
		{HostPath: "/dev/fuse"}, {HostPath: "/dev/dri/card0", ContainerPath: "/dev/card", Access: "rw"}, {HostPath: "nvidia.com/gpu=0"},
	} {
		if err := d.validate(node); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	}
	for _, row := range []struct {
		wish DeviceWish
		want string
	}{
		{DeviceWish{}, "host_path"},
		{DeviceWish{HostPath: "/etc/shadow"}, "/dev"},
		{DeviceWish{HostPath: "/dev/../etc"}, "/dev"},
		{DeviceWish{HostPath: "/dev/sda"}, "allow_devices: /dev/fuse"},
		{DeviceWish{HostPath: "/dev/dri/x/y"}, "allow_devices"},
		{DeviceWish{HostPath: "vendor.com/fpga=0"}, "allow_devices"},
		{DeviceWish{HostPath: "nvidia.com/gpu=0", Access: "r"}, "cgroup_permissions"},
		{DeviceWish{HostPath: "/dev/fuse", Access: "rx"}, "rx"},
		{DeviceWish{HostPath: "/dev/fuse", ContainerPath: "/proc/x"}, "/proc"},
		{DeviceWish{HostPath: "/dev/fuse", ContainerPath: "dev"}, "absolute"},
	} {
		if err := row.wish.validate(node); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: got %v, want %q", row.wish, err, row.want)
		}
	}
	if err := (DeviceWish{HostPath: "/dev/fuse"}).validate(testNode()); err == nil {
		t.Error("a node allows devices by itself")
	}
	for _, bad := range []StorageConfig{{AllowDevices: []string{"/etc/*"}}, {AllowDevices: []string{"/dev/["}}, {CDIDirs: []string{"cdi"}}} {
		if err := bad.validate(); err == nil {
			t.Errorf("took %+v", bad)
		}
	}
}

// What Nomad's device plugins give, what vendors' files say and what the job asks for come together.
func TestDevices_together(t *testing.T) {
	dir := t.TempDir()
	spec := "kind: nvidia.com/gpu\ndevices: [{name: GPU-1, containerEdits: {env: [CDI=1], deviceNodes: [{path: /dev/nvidia0}], mounts: [{hostPath: /l, containerPath: /l}]}}]"
	if err := os.WriteFile(filepath.Join(dir, "nvidia.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &Manager{node: Config{Storage: StorageConfig{CDIDirs: []string{dir}}}}
	s := &start{m: m, facts: facts{req: Request{
		Devices:   []driver.Device{{Source: "/dev/a", Target: "/dev/b", Access: "rw"}},
		DeviceEnv: map[string]string{nvidiaEnv: "GPU-1"},
		Wish:      Wish{Storage: StorageWish{Devices: []DeviceWish{{HostPath: "/dev/fuse"}}}},
	}}}
	if err := s.lookUpDevices(); err != nil {
		t.Fatal(err)
	}
	var c driver.Container
	s.facts.applyDevices(&c)
	want := driver.Container{
		Devices: []driver.Device{
			{Source: "/dev/a", Target: "/dev/b", Access: "rw"}, {Source: "/dev/fuse", Target: "/dev/fuse", Access: "rwm"},
			{Source: "/dev/nvidia0", Target: "/dev/nvidia0", Access: "rwm"},
		},
		Mounts:  []driver.Mount{{Source: "/l", Target: "/l", IDMapped: true}},
		Process: driver.Process{Env: []string{nvidiaEnv + "=GPU-1", "CDI=1"}},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	s.facts.req.DeviceEnv[nvidiaEnv] = "GPU-2"
	if err := s.lookUpDevices(); err == nil || !strings.Contains(err.Error(), "nvidia.com/gpu=GPU-2") || !strings.Contains(err.Error(), "cdi_spec_dirs") {
		t.Errorf("a device without a file: %v", err)
	}
}
