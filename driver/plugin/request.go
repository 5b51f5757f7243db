package plugin

import (
	"fmt"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/task"
)

// request puts what Nomad wants started into our words, and refuses by name what this driver cannot do.
func request(cfg *drivers.TaskConfig) (task.Request, error) {
	var c taskConfig
	if err := cfg.DecodeDriverConfig(&c); err != nil {
		return task.Request{}, fmt.Errorf("config: %w", err)
	}
	wish, err := c.wish(cfg.User)
	if err != nil {
		return task.Request{}, fmt.Errorf("config: %w", err)
	}
	mounts, err := mountsOf(cfg.Mounts)
	if err != nil {
		return task.Request{}, err
	}
	req := task.Request{
		ID: cfg.ID, AllocID: cfg.AllocID, TaskName: cfg.Name, JobID: cfg.JobID, AllocDir: cfg.AllocDir,
		Names: namesOf(cfg), Env: cfg.Env, Wish: wish, Mounts: mounts, DeviceEnv: cfg.DeviceEnv, Stdout: cfg.StdoutPath, Stderr: cfg.StderrPath,
	}
	for _, d := range cfg.Devices {
		req.Devices = append(req.Devices, driver.Device{Source: d.HostPath, Target: d.TaskPath, Access: or(d.Permissions, "rwm")})
	}
	if cfg.NetworkIsolation != nil && cfg.NetworkIsolation.Mode != drivers.NetIsolationModeHost {
		if req.NetNS = cfg.NetworkIsolation.Path; req.NetNS == "" { // it would be the host's
			return task.Request{}, fmt.Errorf("network: mode %s has no network namespace", cfg.NetworkIsolation.Mode)
		}
	}
	if cfg.DNS != nil {
		req.DNS = &task.DNS{Servers: cfg.DNS.Servers, Searches: cfg.DNS.Searches, Options: cfg.DNS.Options}
	}
	addResources(&req, cfg.Resources)
	if req.HostIP == "" && req.Wish.RunInfo {
		req.HostIP = cfg.Env[driver.NodeIPEnv]
	}
	return req, nil
}

// namesOf are what a task can be labelled with, by the names that Nomad's docker driver uses.
func namesOf(cfg *drivers.TaskConfig) map[string]string {
	return map[string]string{
		"job_name": cfg.JobName, "job_id": cfg.JobID, "task_group_name": cfg.TaskGroupName, "task_name": cfg.Name,
		"namespace": cfg.Namespace, "node_name": cfg.NodeName, "node_id": cfg.NodeID,
		"short_alloc_id": cfg.AllocID[:min(len(cfg.AllocID), 8)],
	}
}

// mountsOf are the mounts of volumes, and of device plugins.
func mountsOf(list []*drivers.MountConfig) ([]driver.Mount, error) {
	mounts := make([]driver.Mount, 0, len(list))
	for _, m := range list {
		propagation := ""
		switch m.PropagationMode {
		case "", "private":
		case "host-to-task":
			propagation = driver.PropagationSlave
		case "bidirectional":
			propagation = driver.PropagationShared
		default:
			return nil, fmt.Errorf("volume_mount %s: propagation_mode %q is not one of private, host-to-task, bidirectional", m.TaskPath, m.PropagationMode)
		}
		if m.SELinuxLabel != "" {
			return nil, fmt.Errorf("volume_mount %s: selinux_label is not supported: this driver changes no SELinux labels of the host's files", m.TaskPath)
		}
		mounts = append(mounts, driver.Mount{
			Source: m.HostPath, Target: m.TaskPath, ReadOnly: m.Readonly, IDMapped: true, Recursive: true, Propagation: propagation,
		})
	}
	return mounts, nil
}

func addResources(req *task.Request, r *drivers.Resources) {
	if r == nil {
		return
	}
	if n := r.NomadResources; n != nil {
		req.Resources.MemoryMB, req.Resources.MemoryMaxMB = n.Memory.MemoryMB, n.Memory.MemoryMaxMB
		req.Resources.CPUShares = n.Cpu.CpuShares
		if len(n.Networks) > 0 {
			req.HostIP = n.Networks[0].IP
		}
	}
	if l := r.LinuxResources; l != nil {
		req.Resources.CPUShares = l.CPUShares
		req.Resources.CPUFraction = l.PercentTicks
		req.Resources.Cores = l.CpusetCpus
		req.Resources.CpusetCgroup = l.CpusetCgroupPath
	}
	if r.Ports == nil {
		return
	}
	for _, p := range *r.Ports {
		port := task.Port{Label: p.Label, Host: p.Value, Container: p.To, HostIP: p.HostIP}
		// Without a namespace of its own the task listens on the node's port itself.
		if port.Container <= 0 || req.NetNS == "" {
			port.Container = port.Host
		}
		req.Ports = append(req.Ports, port)
	}
}
