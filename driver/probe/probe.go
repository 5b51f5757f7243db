// Package probe says whether this host can run our containers, and what it offers to them.
//
// Gather looks at the host and starts nothing but the shim's version command, and that only when the shim's file has
// changed; Judge turns what was found, and what a self-test container has shown (package selftest), into a health
// state, a sentence that names the cause and its cure, and attributes for the node. Judge is pure.
//
// The texts hold nothing that changes by itself: Nomad tells its servers of every new one.
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
	// Quota is how tasks' use of disk is limited: "project" by the kernel, or "measured". QuotaDefault is the limit of a task
	// that does not say.
	Quota, QuotaDefault string
	// Shim is the shim's path, ShimVersion its answer; ShimError says why there is none.
	Shim        string
	ShimVersion string
	ShimError   string
	// ShimFile is the identity of the shim's file.
	ShimFile string
	// Trial is what a container on this node has shown; nil while none was run.
	Trial *Trial
	// AppArmor says that containers have a profile; AppArmorError why not, on a host whose kernel could give them one.
	AppArmor      bool
	AppArmorError string
	// Privileged says that jobs may ask for privileged containers.
	Privileged bool
	// Version is the plugin's own.
	Version string
	// Store is what the image store holds; nil when that is not known.
	Store *Store
	// Stacks are the names of the configured stacks; MissingStacks say which of them cannot be used and why.
	Stacks        []string
	MissingStacks []string
}

// Store is what an image store holds, and what room there is.
type Store struct {
	Layers     int
	MB, FreeMB uint64
}

// Trial is what a self-test container has shown.
type Trial struct {
	// Error is why it could not be run, or what it lacked.
	Error                  string
	UserNS, IDMap, Seccomp bool
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

// Judge says what the facts mean.
func Judge(f Facts) Report {
	switch {
	case !f.Enabled:
		return Report{Health: Undetected, Description: "disabled by the plugin option enabled"}
	case !f.Root:
		return Report{Health: Undetected, Description: "the Nomad client must run as root"}
	}
	r := Report{Health: Healthy, Description: "Healthy", Attributes: attributes(f)}
	switch causes := Causes(f); {
	case len(causes) > 0:
		r.Health, r.Description = Unhealthy, strings.Join(causes, "; ")
	case f.Trial == nil:
		r.Health, r.Description = Unhealthy, "the self-test is running: a container that shows whether this node can run any"
	case f.Trial.Error != "":
		r.Health, r.Description = Unhealthy, "the self-test failed: "+f.Trial.Error
	}
	if f.AppArmorError != "" {
		r.Description += "; " + f.AppArmorError
	}
	if len(f.MissingStacks) > 0 { // no reason to refuse tasks that do not want them
		r.Description += "; " + strings.Join(f.MissingStacks, "; ")
	}
	return r
}

// Causes are the reasons, each with its cure, for which no container can be run here; they make a self-test needless.
func Causes(f Facts) []string {
	var list []string
	if f.ShimError != "" {
		list = append(list, f.ShimError)
	}
	if f.Cgroup == "" {
		list = append(list, "no cgroups are mounted on /sys/fs/cgroup: mount cgroup2 there, or boot with systemd")
	}
	if len(f.MissingControllers) > 0 {
		list = append(list, "cgroup controllers are missing: "+strings.Join(f.MissingControllers, ", ")+
			"; enable them in the kernel (boot parameters cgroup_enable, cgroup_disable) or in the outer container's cgroup.subtree_control")
	}
	if f.MaxUserNamespaces == 0 {
		list = append(list, "user namespaces are forbidden: set sysctl user.max_user_namespaces to more than 0")
	}
	return list
}

func attributes(f Facts) map[string]string {
	trial := f.Trial
	if trial == nil {
		trial = &Trial{}
	}
	a := map[string]string{
		"driver.drover":                    "1",
		"driver.drover.version":            f.Version,
		"driver.drover.kernel":             f.Kernel,
		"driver.drover.cgroup":             f.Cgroup,
		"driver.drover.userns":             flag(trial.UserNS),
		"driver.drover.idmap":              flag(trial.IDMap),
		"driver.drover.seccomp":            flag(trial.Seccomp),
		"driver.drover.apparmor":           flag(f.AppArmor),
		"driver.drover.privileged.enabled": flag(f.Privileged),
	}
	if f.Quota != "" {
		a["driver.drover.quota"], a["driver.drover.quota.default"] = f.Quota, f.QuotaDefault
	}
	if f.ShimVersion != "" {
		a["driver.drover.shim"] = f.ShimVersion
	}
	if f.Store != nil {
		// Nomad leaves what is "unique." out when it looks for nodes that are alike. All else would make each node one of a
		// kind, with every layer anew.
		a["unique.driver.drover.store.layers"] = strconv.Itoa(f.Store.Layers)
		a["unique.driver.drover.store.mb"] = coarse(f.Store.MB)
		a["unique.driver.drover.store.free_mb"] = coarse(f.Store.FreeMB)
	}
	for _, name := range f.Stacks {
		a["driver.drover.stack."+name] = "1"
	}
	return a
}

// coarse keeps the first two digits of a number, so that servers hear of no smaller changes.
func coarse(n uint64) string {
	unit := uint64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return strconv.FormatUint(n/unit*unit, 10)
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
