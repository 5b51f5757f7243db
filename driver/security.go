package driver

import "encoding/json"

// Security is how a container differs from the default: its own namespaces, Garden's capabilities for root and none for
// others, no new privileges, the default seccomp profile. The zero value is the default, and every field but CapDrop is
// something that a node's operator must have allowed.
type Security struct {
	// Privileged takes the walls down: all capabilities, the host's devices, nothing masked, a writable /sys. The id range
	// must be zero, since it shares the host's user namespace.
	Privileged bool `json:"privileged,omitempty"`
	// CapAdd names capabilities that the container's users have in addition; a user other than root can use them at once.
	CapAdd []string `json:"cap_add,omitempty"`
	// CapAddAny are added as far as the host has them.
	CapAddAny []string `json:"cap_add_any,omitempty"`
	// CapDrop names capabilities that root has not. What is added is added all the same.
	CapDrop []string `json:"cap_drop,omitempty"`
	// NewPrivileges lets programs gain by exec what their files grant: set-user-id bits and file capabilities.
	NewPrivileges bool `json:"new_privileges,omitempty"`
	// Profile is a seccomp profile in Docker's or the OCI's form, instead of the default one.
	Profile json.RawMessage `json:"profile,omitempty"`
	// AppArmor is the name of the profile that the container's processes are under; empty for none.
	AppArmor string `json:"apparmor,omitempty"`
	// SELinux are options of the container's label, such as "type:container_t"; none leaves it without one.
	SELinux []string `json:"selinux,omitempty"`
	// HostPID, HostIPC and HostUTS share the host's namespace of that kind.
	HostPID bool `json:"host_pid,omitempty"`
	HostIPC bool `json:"host_ipc,omitempty"`
	HostUTS bool `json:"host_uts,omitempty"`
	// Sysctl are values of the container's own network and IPC namespaces, by name ("net.core.somaxconn").
	Sysctl map[string]string `json:"sysctl,omitempty"`
	// Groups are further groups of every process, by name or number, resolved in the container's /etc/group.
	Groups []string `json:"groups,omitempty"`
}

// Extent is a run of ids that a range maps.
type Extent struct{ Container, Host, Size uint32 }

// Extents returns the range as the kernel takes it.
func (r IDRange) Extents() []Extent {
	if r.Identity {
		return []Extent{{Container: 0, Host: r.Host, Size: 1}, {Container: 1, Host: 1, Size: r.Size - 1}}
	}
	return []Extent{{Container: 0, Host: r.Host, Size: r.Size}}
}

// DefaultCapabilities are those of root in Garden's unprivileged containers, and in ours.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}
