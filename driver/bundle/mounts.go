package bundle

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

// mountRule adds the kernel's file systems. sysfs is bound from one that the shim mounted, because a user namespace
// may mount it only for a network namespace of its own, and ours are Nomad's or the host's.
//
// What belongs to a namespace that the container shares with the host is bound from the host too: a user namespace may
// not mount it anew. Whoever is in there still sees the host's processes as a stranger.
func mountRule(spec *specs.Spec, c driver.Container, f Facts) error {
	spec.Mounts = append(spec.Mounts,
		hostsOwn(c.Security.HostPID, "/proc", specs.Mount{
			Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"},
		}),
		specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		specs.Mount{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		hostsOwn(c.Security.HostIPC, "/dev/shm", specs.Mount{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
		}),
		hostsOwn(c.Security.HostIPC, f.Queues, specs.Mount{
			Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"},
		}),
		specs.Mount{Destination: "/sys", Type: "bind", Source: f.Sys, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}},
	)
	if f.CgroupV2 { // runtimes of languages read their limits here
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
		})
	}
	return nil
}

// hostsOwn is a kernel's file system, or the host's mount of it in its place.
func hostsOwn(shared bool, at string, m specs.Mount) specs.Mount {
	if shared {
		m.Type, m.Source, m.Options = "bind", at, []string{"bind", "rprivate", "nosuid", "noexec", "nodev"}
	}
	return m
}

// etcRule binds the files that say who the container is. Its root may write them, as in Garden.
func etcRule(spec *specs.Spec, _ driver.Container, f Facts) error {
	for _, file := range []struct{ source, target string }{
		{f.Hosts, "/etc/hosts"}, {f.ResolvConf, "/etc/resolv.conf"}, {f.Hostname, "/etc/hostname"},
	} {
		if file.source == "" {
			continue
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: file.target, Type: "bind", Source: file.source, Options: []string{"bind", "nosuid", "noexec", "nodev"},
		})
	}
	return nil
}

// initRule puts our own process 1 in place, out of reach of writers.
func initRule(spec *specs.Spec, c driver.Container, f Facts) error {
	if c.Work == nil && !c.Init {
		return nil
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: InitPath, Type: "bind", Source: f.Init, Options: []string{"bind", "ro", "nosuid", "nodev"},
	})
	return nil
}

// bindRule adds the task's own mounts, in their order.
func bindRule(spec *specs.Spec, c driver.Container, f Facts) error {
	for _, m := range c.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" || m.Tmpfs == nil && !path.IsAbs(m.Source) {
			return fmt.Errorf("mount of %q at %q: want absolute paths, and a target below /", m.Source, m.Target)
		}
		mount := specs.Mount{Destination: path.Clean(m.Target), Type: "bind", Source: m.Source, Options: bindOptions(m, c, f)}
		if m.Tmpfs != nil {
			mount.Type, mount.Source, mount.Options = "tmpfs", "tmpfs", tmpfsOptions(m)
		}
		spec.Mounts = append(spec.Mounts, mount)
		if m.Propagation == driver.PropagationSlave {
			spec.Linux.RootfsPropagation = "rslave" // private would cut the container off from the host for good
		}
	}
	return nil
}

// bindOptions: a mount that is shared with the host is bound as a private one, over which the shim puts the shared one,
// since no container with a user namespace could make it itself.
func bindOptions(m driver.Mount, c driver.Container, f Facts) []string {
	kind, propagation, idmap := "rbind", "rprivate", ""
	if m.IDMapped && c.IDs.Size > 0 && f.IDMappable[m.Source] {
		idmap = "idmap"
		switch {
		case !m.Recursive:
			kind = "bind"
		case f.IDMappableTree[m.Source]:
			idmap = "ridmap"
		}
	}
	if m.Propagation == driver.PropagationSlave {
		propagation = "rslave"
	}
	options := []string{kind, propagation, "nosuid", "nodev"}
	if m.Recursive {
		options = append(options, "rnosuid", "rnodev")
	}
	if m.ReadOnly {
		options = append(options, "rro")
	}
	if m.NoExec {
		options = append(options, "noexec")
	}
	if idmap != "" {
		options = append(options, idmap)
	}
	return options
}

// tmpfsOptions: its pages are charged to the container's memory, so that the size bounds no more than one mount's part.
func tmpfsOptions(m driver.Mount) []string {
	options := []string{"nosuid", "nodev", fmt.Sprintf("size=%d", m.Tmpfs.SizeBytes), fmt.Sprintf("mode=%o", m.Tmpfs.Mode)}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	if m.NoExec {
		options = append(options, "noexec")
	}
	return options
}

// hideRule: the union of what Garden and moby hide or make read-only.
func hideRule(spec *specs.Spec, _ driver.Container, f Facts) error {
	spec.Linux.MaskedPaths = append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}, f.Throttles...)
	spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	return nil
}
