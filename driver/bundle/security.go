package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
	"drover/driver/seccomp"
)

// gardenCapabilities is what root has in Garden's unprivileged containers.
func gardenCapabilities() []string { return driver.DefaultCapabilities() }

// capabilities gives root Garden's set, as far as the host has it itself, and what the container adds; other users have
// what it adds alone, in the ambient set too, so that programs keep it. Without an addition they have none in any of the
// five sets, and not even a file with capabilities gives them any, unless new privileges are let in.
func capabilities(u User, s driver.Security, host []string) (*specs.LinuxCapabilities, error) {
	for _, name := range s.CapAdd {
		if len(host) > 0 && !slices.Contains(host, name) {
			return nil, fmt.Errorf("cap_add: %s is not to be had, because the Nomad agent has not got it itself", name)
		}
	}
	root, added := rootCapabilities(s, host), within(host, append(slices.Clone(s.CapAdd), s.CapAddAny...))
	switch {
	case u.UID == 0:
		return &specs.LinuxCapabilities{Bounding: root, Effective: root, Permitted: root}, nil
	case s.Privileged: // as in Docker's: what files grant can be had, and nothing at once
		return &specs.LinuxCapabilities{Bounding: root}, nil
	}
	caps := &specs.LinuxCapabilities{Bounding: added, Effective: added, Permitted: added, Inheritable: added, Ambient: added}
	if s.NewPrivileges {
		caps.Bounding = root
	}
	return caps, nil
}

// rootCapabilities are those of the container's root, which are the most that anybody in it can have.
func rootCapabilities(s driver.Security, host []string) []string {
	if s.Privileged {
		return slices.DeleteFunc(slices.Clone(host), func(name string) bool { return slices.Contains(s.CapDrop, name) })
	}
	kept := slices.DeleteFunc(gardenCapabilities(), func(name string) bool { return slices.Contains(s.CapDrop, name) })
	return within(host, slices.Concat(kept, s.CapAdd, s.CapAddAny))
}

// within leaves out what the host has not, and what is there twice.
func within(host, names []string) []string {
	var set []string
	for _, name := range names {
		if slices.Contains(host, name) && !slices.Contains(set, name) {
			set = append(set, name)
		}
	}
	return set
}

// profileRule takes a profile of the job's or the operator's own in place of the default one.
func profileRule(spec *specs.Spec, c driver.Container, f Facts) error {
	profile, err := seccomp.Parse(c.Security.Profile)
	if err == nil {
		spec.Linux.Seccomp, err = profile.For(seccomp.Host{
			Arch: f.Arch, Kernel: f.Kernel, Capabilities: rootCapabilities(c.Security, f.Capabilities),
		})
	}
	if err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	return nil
}

// oomRule: a program that lost one of its processes is seldom whole, so that the container ends as one. Work has checks
// and sidecars beside its main process, and tells each one's end by name.
func oomRule(spec *specs.Spec, c driver.Container, f Facts) error {
	if f.CgroupV2 && c.Work == nil {
		spec.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return nil
}

func labelRule(spec *specs.Spec, _ driver.Container, f Facts) error {
	spec.Linux.MountLabel = f.MountLabel
	return nil
}

// privilegedRule undoes what keeps a container from the host's kernel. Its namespaces stay its own, but for that of users.
func privilegedRule(spec *specs.Spec, c driver.Container, f Facts) error {
	if !c.Security.Privileged {
		return nil
	}
	if c.IDs.Size != 0 {
		return errors.New("privileged: a privileged container has the host's user namespace")
	}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Devices = append(spec.Linux.Devices, f.Devices...)
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for n, m := range spec.Mounts {
		if m.Destination == "/sys" || strings.HasPrefix(m.Destination, "/sys/") {
			spec.Mounts[n].Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
	return nil
}
