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

// Prober looks at this host, again and again.
type Prober struct{ shim shimFile }

// Gather looks at this host. It may be called by one at a time.
func (p *Prober) Gather(ctx context.Context, shim string) Facts {
	f := Facts{Enabled: true, Root: os.Geteuid() == 0, Shim: shim}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		f.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	f.Cgroup, f.MissingControllers = cgroups(cgroupRoot)
	f.MaxUserNamespaces = userNamespaces("/proc/sys/user/max_user_namespaces")
	var err error
	f.ShimVersion, f.ShimFile, err = p.shim.look(ctx, shim)
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

// shimFile is a shim that was asked for its version.
type shimFile struct{ path, id, version string }

// look runs the shim's version command, unless it has answered before and its file is the same. Under load a command can
// fail that did not fail before, and that is no reason to call the node ill.
func (s *shimFile) look(ctx context.Context, path string) (version, id string, err error) {
	if path == "" {
		return "", "", fmt.Errorf("drover-shim was found neither beside the plugin nor on the PATH; set the plugin option shim")
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", "", fmt.Errorf("shim %s: %w; set the plugin option shim", path, err)
	}
	id = fmt.Sprintf("%d:%d:%d:%d", stat.Dev, stat.Ino, stat.Size, stat.Mtim.Nano())
	if s.path == path && s.id == id {
		return s.version, id, nil
	}
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return "", id, fmt.Errorf("%s version: %w; set the plugin option shim to a drover-shim that runs here", path, err)
	}
	version, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	*s = shimFile{path: path, id: id, version: version}
	return version, id, nil
}
