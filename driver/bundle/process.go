package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

// Defaults of processes.
const (
	umask     = 0o022
	pathRoot  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	pathOther = "/usr/local/bin:/usr/bin:/bin"
)

// gardenCapabilities is what root has in Garden's unprivileged containers.
func gardenCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

func processRule(spec *specs.Spec, c driver.Container, f Facts) error {
	if c.Work != nil { // process 1 only reaps; the work's processes come later
		root := User{Name: "root", Home: "/"}
		reaper, err := Process(driver.Process{Args: []string{InitPath, "reaper"}, Dir: "/"}, c, Facts{
			User: root, WorkDir: "/", HardLimits: f.HardLimits,
		})
		spec.Process = reaper
		return err
	}
	process, err := Process(c.Process, c, f)
	spec.Process = process
	return err
}

// Process returns the spec of one process of a container: its first, or one that is run in it later. Of the facts it
// reads the user, the directory, and the host's capabilities and limits.
func Process(p driver.Process, c driver.Container, f Facts) (*specs.Process, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, errors.New("no command is given, and the image names none")
	}
	env, err := Env(p.Env, f.User)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(p, c.Limits, f.HardLimits)
	if err != nil {
		return nil, err
	}
	oom, mask := c.Limits.OOMScoreAdj, uint32(umask)
	return &specs.Process{
		Args:            p.Args,
		Env:             env,
		Cwd:             f.WorkDir,
		User:            specs.User{UID: f.User.UID, GID: f.User.GID, AdditionalGids: f.User.Groups, Umask: &mask},
		NoNewPrivileges: true,
		OOMScoreAdj:     &oom,
		Capabilities:    capabilities(f.User, f.Capabilities),
		Rlimits:         limits,
	}, nil
}

// Env returns a process's environment: of duplicates the last, and HOME, USER and PATH where they are missing.
func Env(env []string, u User) ([]string, error) {
	var out []string
	at := map[string]int{}
	for _, entry := range env {
		name, _, found := strings.Cut(entry, "=")
		if !found || name == "" || strings.ContainsRune(entry, 0) {
			return nil, fmt.Errorf("environment variable %q: want NAME=value without zero bytes", name)
		}
		if i, again := at[name]; again {
			out[i] = entry
			continue
		}
		at[name] = len(out)
		out = append(out, entry)
	}
	search := pathOther
	if u.UID == 0 {
		search = pathRoot
	}
	for _, preset := range []struct{ name, value string }{{"HOME", u.Home}, {"USER", u.Name}, {"PATH", search}} {
		if _, given := at[preset.name]; !given {
			out = append(out, preset.name+"="+preset.value)
		}
	}
	return out, nil
}

// Dir returns where a process begins: the directory asked for, else the user's home, else / where that is missing.
func Dir(asked string, u User, exists func(string) bool) string {
	if asked != "" {
		return asked
	}
	if u.Home != "" && exists(u.Home) {
		return u.Home
	}
	return "/"
}

// capabilities gives root Garden's set, as far as the host has it itself; other users have none in any of the five
// sets, so that not even a file with capabilities gives them any.
func capabilities(u User, bounding []string) *specs.LinuxCapabilities {
	if u.UID != 0 {
		return &specs.LinuxCapabilities{}
	}
	set := slices.DeleteFunc(gardenCapabilities(), func(name string) bool { return !slices.Contains(bounding, name) })
	return &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}
}
