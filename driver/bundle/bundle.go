// Package bundle makes a container's OCI runtime spec. It is pure: what must be looked up (users, the host's limits
// and capabilities, which files exist) comes in as Facts, and nothing is read besides.
//
// Spec is an ordered list of small rules; each adds one side of a container to the spec and reads only its arguments.
// Process makes the spec of one more process of the same container, by the same rules as its first one.
//
// The security that every container gets unless its Security says otherwise, which operators must have allowed:
// namespaces of its own (a user namespace whenever the container has an id range), no new privileges, the capabilities
// of Garden's unprivileged containers for root and none for anyone else, masked and read-only kernel files, denied
// devices. The number of processes is limited always.
package bundle

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

// Facts are what the rules need to know of the host and of the container's root file system.
type Facts struct {
	// Rootfs is the host path of the mounted root file system.
	Rootfs string
	// User is the account of the container's first process.
	User User
	// WorkDir is the first process's directory; see Dir.
	WorkDir string
	// Capabilities is the bounding set of the calling process, as names such as CAP_CHOWN.
	Capabilities []string
	// HardLimits are the hard limits of the calling process, by the names of driver.UlimitNames.
	HardLimits map[string]uint64
	// ProcessLabel is the container's SELinux label; empty for none.
	ProcessLabel string
	// MountLabel is that of the kernel's file systems in it.
	MountLabel string
	// Queues is the host path of the host's message queues, for containers that share them.
	Queues string
	// Kernel is the kernel's release.
	Kernel string
	// Devices are the host's, for privileged containers.
	Devices []specs.LinuxDevice
	// Throttles are the host's directories that tell how hot each processor got.
	Throttles []string
	// CgroupV2 says that the host has the unified hierarchy only.
	CgroupV2 bool
	// SwapLimits says that the kernel can limit swap.
	SwapLimits bool
	// Arch is the architecture as Go names it.
	Arch string
	// CgroupPath is the container's cgroup relative to the mount points.
	CgroupPath string
	// Sys is the host path of a sysfs of the container's network namespace.
	Sys string
	// Hosts, ResolvConf and Hostname are host paths of files to be bound over /etc; empty leaves the image's own.
	Hosts, ResolvConf, Hostname string
	// Init is the host path of the shim's executable, for containers whose process 1 is ours.
	Init string
	// Nodes are what the container's Devices turned out to be.
	Nodes []Device
	// IDMappable tells which mounts' sources, by path, can be mounted id-mapped.
	IDMappable map[string]bool
	// IDMappableTree tells the same of what is mounted below them, too.
	IDMappableTree map[string]bool
}

// User is an account in the container.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Name     string
	Home     string
}

// InitPath is where the process 1 of containers that run Work, or asked for it, is found in them.
const InitPath = "/.drover/init"

// rule adds one side of a container to its spec.
type rule func(spec *specs.Spec, c driver.Container, f Facts) error

func rules() []rule {
	return []rule{
		rootRule,
		namespaceRule,
		processRule,
		mountRule,
		shmRule,
		etcRule,
		initRule,
		bindRule,
		hideRule,
		deviceRule,
		deviceNodeRule,
		memoryRule,
		cpuRule,
		pidsRule,
		oomRule,
		seccompRule,
		labelRule,
		privilegedRule,
	}
}

// Spec returns the OCI spec of a container.
func Spec(c driver.Container, f Facts) (*specs.Spec, error) {
	spec := &specs.Spec{Version: specs.Version, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	for _, apply := range rules() {
		if err := apply(spec, c, f); err != nil {
			return nil, fmt.Errorf("container %s: %w", c.ID, err)
		}
	}
	return spec, nil
}

func rootRule(spec *specs.Spec, c driver.Container, f Facts) error {
	spec.Root = &specs.Root{Path: f.Rootfs, Readonly: c.RootFS.ReadOnly}
	if !c.Security.HostUTS {
		spec.Hostname = c.Hostname
	}
	spec.Linux.CgroupsPath = f.CgroupPath
	spec.Linux.RootfsPropagation = "rprivate"
	return nil
}

// namespaceRule: without a network namespace the host's is shared, as Nomad's host mode asks.
func namespaceRule(spec *specs.Spec, c driver.Container, _ Facts) error {
	for _, ns := range []struct {
		kind specs.LinuxNamespaceType
		host bool
	}{
		{specs.PIDNamespace, c.Security.HostPID},
		{specs.MountNamespace, false},
		{specs.UTSNamespace, c.Security.HostUTS},
		{specs.IPCNamespace, c.Security.HostIPC},
		{specs.CgroupNamespace, false},
	} {
		if !ns.host {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: ns.kind})
		}
	}
	if c.NetNS != "" {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS})
	}
	if c.IDs.Size == 0 {
		return nil
	}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	var mapping []specs.LinuxIDMapping
	for _, e := range c.IDs.Extents() {
		mapping = append(mapping, specs.LinuxIDMapping{ContainerID: e.Container, HostID: e.Host, Size: e.Size})
	}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = mapping, mapping
	return nil
}
