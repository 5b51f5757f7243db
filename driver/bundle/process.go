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

func processRule(spec *specs.Spec, c driver.Container, f Facts) error {
	if c.Work != nil { // process 1 only reaps; the work's processes come later
		root := User{Name: "root", Home: "/"}
		reaper, err := Process(driver.Process{Args: []string{InitPath, "reaper"}, Dir: "/"}, c, Facts{
			User: root, WorkDir: "/", HardLimits: f.HardLimits, ProcessLabel: f.ProcessLabel,
		})
		spec.Process = reaper
		return err
	}
	process, err := Process(c.Process, c, f)
	if err != nil {
		return err
	}
	if c.Init {
		process.Args = append([]string{InitPath, "tend"}, process.Args...)
	}
	if c.TTY {
		process.Terminal, process.ConsoleSize = true, &specs.Box{Width: 80, Height: 24}
	}
	spec.Process = process
	return nil
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
	if c.Work == nil { // Cloud Foundry's apps never had it
		env = withDefault(env, "LOGNAME", f.User.Name)
	}
	caps, err := capabilities(f.User, c.Security, f.Capabilities)
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
		NoNewPrivileges: !c.Security.NewPrivileges,
		ApparmorProfile: c.Security.AppArmor,
		SelinuxLabel:    f.ProcessLabel,
		OOMScoreAdj:     &oom,
		Capabilities:    caps,
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

// withDefault adds a variable that is not set.
func withDefault(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") }) {
		return env
	}
	return append(env, name+"="+value)
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
