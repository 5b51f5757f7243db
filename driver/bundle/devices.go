package bundle

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

// Device is a device node for the container.
type Device struct {
	// Source is the host path of a node of the container's own, Target where it belongs in the container.
	Source, Target string
	// Type is c or b.
	Type         string
	Major, Minor int64
	Access       string
}

// deviceNodeRule binds the nodes and permits their use. No user namespace may make a node; so they were made outside.
func deviceNodeRule(spec *specs.Spec, _ driver.Container, f Facts) error {
	for _, d := range f.Nodes {
		target := path.Clean(d.Target)
		if !path.IsAbs(target) || target == "/" || !slices.Contains([]string{"c", "b"}, d.Type) || d.Access == "" || strings.Trim(d.Access, "rwm") != "" {
			return fmt.Errorf("device %+v: want an absolute path, type c or b, and access of r, w, m", d)
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: target, Type: "bind", Source: d.Source, Options: []string{"bind", "rprivate", "nosuid", "noexec"},
		})
		spec.Linux.Resources.Devices = append(spec.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: d.Access,
		})
	}
	return nil
}
