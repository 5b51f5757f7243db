// Package probe says whether this host can run our containers, and what it offers to them.
//
// Gather looks at the host and starts nothing but the shim's version command; Judge turns what was found into a health
// state, a sentence that names the cause and its cure, and attributes for the node. Judge is pure.
package probe

import (
	"strconv"
	"strings"
)

// Facts are what Gather found.
type Facts struct {
	Enabled bool
	Root    bool
	// Kernel is the kernel's release, such as "6.1.0-18-amd64".
	Kernel string
	// Cgroup is "v1", "v2" or empty when there are no usable cgroups.
	Cgroup string
	// MissingControllers are the cgroup controllers that we need and the host lacks.
	MissingControllers []string
	// MaxUserNamespaces is the kernel's limit; 0 forbids user namespaces.
	MaxUserNamespaces int
	// Seccomp says that the kernel filters system calls and that the operator has not switched it off.
	Seccomp bool
	// Shim is the shim's path, ShimVersion its answer; ShimError says why there is none.
	Shim        string
	ShimVersion string
	ShimError   string
	// Version is the plugin's own.
	Version string
	// Stacks are the names of the configured stacks; MissingStacks say which of them cannot be used and why.
	Stacks        []string
	MissingStacks []string
}

// Health is a node's ability to run our tasks.
type Health string

// States of Health. Undetected says that the driver is not meant to run here.
const (
	Healthy    Health = "healthy"
	Unhealthy  Health = "unhealthy"
	Undetected Health = "undetected"
)

// Report is what a node tells about the driver.
type Report struct {
	Health      Health
	Description string
	Attributes  map[string]string
}

// minIDMapKernel is the first kernel whose overlay takes id-mapped layers.
const minIDMapMajor, minIDMapMinor = 5, 19

// Judge says what the facts mean.
func Judge(f Facts) Report {
	switch {
	case !f.Enabled:
		return Report{Health: Undetected, Description: "disabled by the plugin option enabled"}
	case !f.Root:
		return Report{Health: Undetected, Description: "the Nomad client must run as root"}
	}
	r := Report{Health: Healthy, Description: "Healthy", Attributes: attributes(f)}
	if causes := causes(f); len(causes) > 0 {
		r.Health, r.Description = Unhealthy, strings.Join(causes, "; ")
	}
	if len(f.MissingStacks) > 0 { // no reason to refuse tasks that do not want them
		r.Description += "; " + strings.Join(f.MissingStacks, "; ")
	}
	return r
}

func causes(f Facts) []string {
	var list []string
	if f.ShimError != "" {
		list = append(list, f.ShimError)
	}
	if f.Cgroup == "" {
		list = append(list, "no cgroups are mounted on /sys/fs/cgroup")
	}
	if len(f.MissingControllers) > 0 {
		list = append(list, "cgroup controllers are missing: "+strings.Join(f.MissingControllers, ", "))
	}
	if f.MaxUserNamespaces == 0 {
		list = append(list, "user namespaces are forbidden (sysctl user.max_user_namespaces)")
	}
	if f.Kernel != "" && !idMappedLayers(f.Kernel) {
		list = append(list, "kernel "+f.Kernel+" cannot id-map layers; 5.19 or newer can")
	}
	return list
}

func attributes(f Facts) map[string]string {
	a := map[string]string{
		"driver.drover":         "1",
		"driver.drover.version": f.Version,
		"driver.drover.kernel":  f.Kernel,
		"driver.drover.cgroup":  f.Cgroup,
		"driver.drover.userns":  flag(f.MaxUserNamespaces > 0),
		"driver.drover.idmap":   flag(idMappedLayers(f.Kernel)),
		"driver.drover.seccomp": flag(f.Seccomp),
		// What containers write is not limited, and no AppArmor profile is loaded, by any version so far.
		"driver.drover.quota":    flag(false),
		"driver.drover.apparmor": flag(false),
	}
	if f.ShimVersion != "" {
		a["driver.drover.shim"] = f.ShimVersion
	}
	for _, name := range f.Stacks {
		a["driver.drover.stack."+name] = "1"
	}
	return a
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// idMappedLayers reads a kernel release; one that it cannot read is taken for new.
func idMappedLayers(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(strings.TrimRight(minor, "-+abcdefghijklmnopqrstuvwxyz"))
	if errA != nil || errB != nil {
		return true
	}
	return a > minIDMapMajor || a == minIDMapMajor && b >= minIDMapMinor
}
