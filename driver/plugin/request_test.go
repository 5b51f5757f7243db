package plugin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/task"
)

func taskOf(t *testing.T, change func(*drivers.TaskConfig)) *drivers.TaskConfig {
	t.Helper()
	cfg := &drivers.TaskConfig{
		ID: "a/web/1", AllocID: "a", Name: "web", JobID: "job", AllocDir: "/alloc/a", Env: map[string]string{"A": "b"},
		StdoutPath: "/o", StderrPath: "/e", User: "vcap",
	}
	if err := cfg.EncodeConcreteDriverConfig(&taskConfig{imageTask: imageTask{Image: "i"}}); err != nil {
		t.Fatal(err)
	}
	change(cfg)
	return cfg
}

func TestRequest_takesTheNodesAddressFromTheBridge(t *testing.T) {
	for _, row := range []struct {
		name    string
		runInfo bool
		want    string
	}{
		{"work of the bridge knows its node without a port", true, "192.0.2.7"},
		{"a hand-written job says nothing of the kind", false, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := taskOf(t, func(c *drivers.TaskConfig) { c.Env = map[string]string{driver.NodeIPEnv: "192.0.2.7"} })
			if err := cfg.EncodeConcreteDriverConfig(&taskConfig{platformTask: platformTask{RunInfo: row.runInfo}}); err != nil {
				t.Fatal(err)
			}
			req, err := request(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if req.HostIP != row.want {
				t.Errorf("HostIP = %q, want %q", req.HostIP, row.want)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	cfg := taskOf(t, func(c *drivers.TaskConfig) {
		c.NetworkIsolation = &drivers.NetworkIsolationSpec{Mode: drivers.NetIsolationModeGroup, Path: "/run/netns/a"}
		c.DNS = &drivers.DNSConfig{Servers: []string{"1.1.1.1"}}
		c.Devices = []*drivers.DeviceConfig{{HostPath: "/dev/a", TaskPath: "/dev/b", Permissions: "rw"}}
		c.DeviceEnv = map[string]string{"GPU": "1"}
		c.Mounts = []*drivers.MountConfig{{HostPath: "/vol", TaskPath: "/data", Readonly: true, PropagationMode: "private"},
			{HostPath: "/vol", TaskPath: "/hears", PropagationMode: "host-to-task"}, {HostPath: "/vol", TaskPath: "/shares", PropagationMode: "bidirectional"}}
		c.Resources = &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{
				Memory:   structs.AllocatedMemoryResources{MemoryMB: 64, MemoryMaxMB: 128},
				Networks: structs.Networks{{IP: "192.0.2.1"}},
			},
			LinuxResources: &drivers.LinuxResources{CPUShares: 100, PercentTicks: 0.25, CpusetCpus: "0", CpusetCgroupPath: "/cg"},
			Ports:          &structs.AllocatedPorts{{Label: "http", Value: 20001, To: 8080, HostIP: "192.0.2.1"}, {Label: "raw", Value: 20002}},
		}
	})
	got, err := request(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := task.Request{
		ID: "a/web/1", AllocID: "a", TaskName: "web", JobID: "job", AllocDir: "/alloc/a", Env: map[string]string{"A": "b"},
		Stdout: "/o", Stderr: "/e", Wish: task.Wish{Image: "i", User: "vcap"}, NetNS: "/run/netns/a", HostIP: "192.0.2.1",
		Names: map[string]string{
			"job_id": "job", "job_name": "", "namespace": "", "node_id": "", "node_name": "", "short_alloc_id": "a", "task_group_name": "", "task_name": "web",
		},
		DNS:     &task.DNS{Servers: []string{"1.1.1.1"}},
		Devices: []driver.Device{{Source: "/dev/a", Target: "/dev/b", Access: "rw"}}, DeviceEnv: map[string]string{"GPU": "1"},
		Mounts: []driver.Mount{
			{Source: "/vol", Target: "/data", ReadOnly: true, IDMapped: true, Recursive: true},
			{Source: "/vol", Target: "/hears", IDMapped: true, Recursive: true, Propagation: driver.PropagationSlave},
			{Source: "/vol", Target: "/shares", IDMapped: true, Recursive: true, Propagation: driver.PropagationShared},
		},
		Resources: task.Resources{
			MemoryMB: 64, MemoryMaxMB: 128, CPUShares: 100, CPUFraction: 0.25, Cores: "0", CpusetCgroup: "/cg",
		},
		Ports: []task.Port{{Label: "http", Host: 20001, Container: 8080, HostIP: "192.0.2.1"}, {Label: "raw", Host: 20002, Container: 20002}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRequest_inTheHostsNetworkPortsAreTheHosts(t *testing.T) {
	got, err := request(taskOf(t, func(c *drivers.TaskConfig) {
		c.NetworkIsolation = &drivers.NetworkIsolationSpec{Mode: drivers.NetIsolationModeHost}
		c.Resources = &drivers.Resources{Ports: &structs.AllocatedPorts{{Label: "http", Value: 20001, To: 8080}}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if want := []task.Port{{Label: "http", Host: 20001, Container: 20001}}; !cmp.Equal(want, got.Ports) || got.NetNS != "" {
		t.Errorf("ports %+v in namespace %q, want %+v in the host's", got.Ports, got.NetNS, want)
	}
}

func TestRequest_refusesByName(t *testing.T) {
	for says, change := range map[string]func(*drivers.TaskConfig){
		`propagation_mode "sideways"`: func(c *drivers.TaskConfig) {
			c.Mounts = []*drivers.MountConfig{{TaskPath: "/d", PropagationMode: "sideways"}}
		},
		"selinux_label": func(c *drivers.TaskConfig) { c.Mounts = []*drivers.MountConfig{{TaskPath: "/d", SELinuxLabel: "z"}} },
		"no network namespace": func(c *drivers.TaskConfig) {
			c.NetworkIsolation = &drivers.NetworkIsolationSpec{Mode: drivers.NetIsolationModeGroup}
		},
	} {
		if _, err := request(taskOf(t, change)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one with %q", err, says)
		}
	}
}
