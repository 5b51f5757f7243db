package probe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot  = "/sys/fs/cgroup"
	shimTimeout = 10 * time.Second
)

// Gather looks at this host.
func Gather(ctx context.Context, shim string) Facts {
	f := Facts{Enabled: true, Root: os.Geteuid() == 0, Shim: shim}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		f.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	f.Cgroup, f.MissingControllers = cgroups(cgroupRoot)
	f.MaxUserNamespaces = userNamespaces("/proc/sys/user/max_user_namespaces")
	_, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail")
	f.Seccomp = err == nil
	f.ShimVersion, err = shimVersion(ctx, shim)
	if err != nil {
		f.ShimError = err.Error()
	}
	return f
}

// cgroups returns the version that is mounted below root, and which of the controllers that we need it lacks.
func cgroups(root string) (version string, missing []string) {
	if list, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		have := strings.Fields(string(list))
		for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
			if !slices.Contains(have, c) {
				missing = append(missing, c)
			}
		}
		return "v2", missing
	}
	needed := []string{"cpu", "cpuset", "devices", "freezer", "memory", "pids"}
	for _, c := range needed {
		// A directory of a controller that is not mounted holds no files.
		if _, err := os.Stat(filepath.Join(root, c, "cgroup.procs")); err != nil {
			missing = append(missing, c)
		}
	}
	if len(missing) == len(needed) {
		return "", nil
	}
	return "v1", missing
}

// userNamespaces reads the limit of user namespaces; kernels without one allow them.
func userNamespaces(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 1
	}
	return n
}

// shimVersion runs the shim's version command.
func shimVersion(ctx context.Context, shim string) (string, error) {
	if shim == "" {
		return "", fmt.Errorf("drover-shim was found neither beside the plugin nor on the PATH; set the plugin option shim")
	}
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, shim, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w; set the plugin option shim to a drover-shim that runs here", shim, err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return version, nil
}
