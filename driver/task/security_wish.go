package task

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"drover/driver"
	"drover/driver/apparmor"
)

// SecurityWish is a job's part of the same.
type SecurityWish struct {
	// CapAdd and CapDrop are names as jobs write them.
	CapAdd, CapDrop []string
	Privileged      bool
	// NoNewPrivileges is nil when the job does not say.
	NoNewPrivileges *bool
	// SecurityOpt are options in Docker's form: "seccomp=local/profile.json".
	SecurityOpt []string
	// UserNS is "auto", "identity" or "host"; the others "private" or "host". Empty is the first.
	UserNS, PIDMode, IPCMode, UTSMode string
	Sysctl                            map[string]string
	GroupAdd                          []string
}

// securityOpt is what security_opt says.
type securityOpt struct {
	seccomp, apparmor string
	labels            []string
	noNewPrivileges   *bool
}

func (w SecurityWish) validate(node Config) error {
	_, err := w.resolve(node)
	return err
}

// resolve says what the wish means on a node, and names everything that it does not allow. That a profile exists is seen
// when it is read.
func (w SecurityWish) resolve(node Config) (driver.Security, error) {
	opt, err := parseSecurityOpt(w.SecurityOpt)
	if err != nil {
		return driver.Security{}, err
	}
	s := driver.Security{
		Privileged: w.Privileged, HostPID: w.PIDMode == modeHost, HostIPC: w.IPCMode == modeHost, HostUTS: w.UTSMode == modeHost,
		Groups: w.GroupAdd, SELinux: opt.labels,
	}
	for name, value := range w.Sysctl {
		if s.Sysctl == nil {
			s.Sysctl = map[string]string{}
		}
		s.Sysctl[strings.ReplaceAll(name, "/", ".")] = value
	}
	noNew, err := w.noNewPrivileges(opt)
	s.NewPrivileges = !noNew
	return s, errors.Join(
		err, w.checkModes(node), w.checkPrivileged(node), w.resolveCaps(node, &s), opt.check(node),
		w.checkSysctl(), w.checkGroups(), w.checkNewPrivileges(node, s),
	)
}

func (w SecurityWish) checkPrivileged(node Config) error {
	switch {
	case !w.Privileged:
		return nil
	case !node.Security.AllowPrivileged:
		return errors.New("privileged: this node's operator does not allow privileged tasks (plugin option allow_privileged)")
	case w.UserNS != "" && w.UserNS != modeHost:
		return fmt.Errorf("userns: %q is not possible with privileged, which has the host's", w.UserNS)
	}
	return nil
}

// noNewPrivileges is on unless the job says otherwise, or is privileged.
func (w SecurityWish) noNewPrivileges(opt securityOpt) (bool, error) {
	switch a, b := w.NoNewPrivileges, opt.noNewPrivileges; {
	case a != nil && b != nil && *a != *b:
		return true, errors.New("no_new_privileges: security_opt says the opposite")
	case a != nil:
		return *a, nil
	case b != nil:
		return *b, nil
	}
	return !w.Privileged, nil
}

func (w SecurityWish) checkNewPrivileges(node Config, s driver.Security) error {
	if s.NewPrivileges && !node.Security.AllowNewPrivileges && !node.Security.AllowPrivileged {
		return errors.New("no_new_privileges: this node's operator does not allow to switch it off (plugin option allow_new_privileges)")
	}
	return nil
}

func (w SecurityWish) checkModes(node Config) error {
	var errs []error
	for _, m := range []struct {
		field, option, value string
		free, allowed        []string
	}{
		{optUserNS, optUserNS, w.UserNS, []string{"", modeAuto}, []string{modeIdentity, modeHost}},
		{"pid_mode", optPID, w.PIDMode, []string{"", modePrivate}, []string{modeHost}},
		{"ipc_mode", optIPC, w.IPCMode, []string{"", modePrivate}, []string{modeHost}},
		{"uts_mode", optUTS, w.UTSMode, []string{"", modePrivate}, []string{modeHost}},
	} {
		switch {
		case slices.Contains(m.free, m.value):
		case slices.Contains(m.allowed, m.value):
			errs = append(errs, node.Security.permits(m.field, m.option, m.value))
		default:
			errs = append(errs, fmt.Errorf("%s: %q is neither %q nor %s", m.field, m.value, m.free[1], strings.Join(m.allowed, " nor ")))
		}
	}
	return errors.Join(errs...)
}

// resolveCaps applies Docker's rules: what is added is there also when all are dropped, and ALL means all that may be had.
func (w SecurityWish) resolveCaps(node Config, s *driver.Security) error {
	allowed, all, err := node.Security.allowedCaps()
	if err != nil {
		return err
	}
	var errs []error
	add, addAll := capNames("cap_add", w.CapAdd, &errs)
	drop, dropAll := capNames("cap_drop", w.CapDrop, &errs)
	for _, name := range add {
		if slices.Contains(drop, name) {
			errs = append(errs, fmt.Errorf("cap_drop: %s is in cap_add too", name))
		}
		if !w.Privileged && !slices.Contains(allowed, name) {
			errs = append(errs, fmt.Errorf("cap_add: %s is not allowed on this node; allowed are %s (plugin option allow_caps)", name, strings.Join(allowed, ", ")))
		}
	}
	s.CapAdd = add
	if addAll {
		s.CapAddAny = without(allowed, drop)
	}
	s.CapDrop = drop
	if dropAll {
		s.CapDrop = driver.DefaultCapabilities()
		if w.Privileged {
			s.CapDrop = without(knownCaps(), add)
		}
	} else if !all && !w.Privileged { // nobody has what the operator does not allow
		s.CapDrop = append(drop, without(without(driver.DefaultCapabilities(), allowed), drop)...)
	}
	return errors.Join(errs...)
}

func capNames(field string, texts []string, errs *[]error) (names []string, all bool) {
	for _, text := range texts {
		switch name, err := capName(text); {
		case err != nil:
			*errs = append(*errs, fmt.Errorf("%s: %w", field, err))
		case name == capAll:
			all = true
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	return names, all
}

func without(names, gone []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(gone, name) })
}

// parseSecurityOpt reads options in Docker's form; the older "name:value" is one too.
func parseSecurityOpt(list []string) (securityOpt, error) {
	var opt securityOpt
	for _, text := range list {
		name, value, given := strings.Cut(text, "=")
		if !given {
			name, value, given = strings.Cut(text, ":")
		}
		switch {
		case name == "no-new-privileges":
			on := value != "false"
			if given && value != "true" && value != "false" {
				return opt, fmt.Errorf("security_opt: %q: want true or false", text)
			}
			opt.noNewPrivileges = &on
		case value == "":
			return opt, fmt.Errorf("security_opt: %q: want NAME=VALUE", text)
		case name == optSeccomp && opt.seccomp == "":
			opt.seccomp = value
		case name == optAppArmor && opt.apparmor == "":
			opt.apparmor = value
		case name == "label":
			opt.labels = append(opt.labels, value)
		case name == optSeccomp || name == optAppArmor:
			return opt, fmt.Errorf("security_opt: %s is given twice", name)
		default:
			return opt, fmt.Errorf("security_opt: %q is not known; seccomp, apparmor, label and no-new-privileges are", name)
		}
	}
	return opt, opt.checkLabels()
}

func (o *securityOpt) checkLabels() error {
	for _, label := range o.labels {
		kind, value, _ := strings.Cut(label, ":")
		switch {
		case label == "disable" && len(o.labels) == 1:
			o.labels = nil // a container has none unless one is asked for
		case !slices.Contains([]string{"user", "role", "type", "level"}, kind) || value == "":
			return fmt.Errorf("security_opt: label %q: want user:, role:, type: or level: with a value, or disable alone", label)
		}
	}
	return nil
}

func (o securityOpt) check(node Config) error {
	var errs []error
	switch o.seccomp {
	case "":
	case modeDefault, "builtin":
		if node.Seccomp == modeOff {
			errs = append(errs, errors.New("security_opt: seccomp is off on this node (plugin option seccomp)"))
		}
	case modeUnconfined:
		errs = append(errs, node.Security.permits("security_opt seccomp", optSeccomp, modeUnconfined))
	default:
		if node.Seccomp == modeOff {
			errs = append(errs, errors.New("security_opt: seccomp is off on this node (plugin option seccomp)"))
		}
		errs = append(errs, o.checkProfile(node))
	}
	switch {
	case o.apparmor == "" || o.apparmor == apparmor.Profile || o.apparmor == node.Security.appArmorProfile():
	case !profileName(o.apparmor):
		errs = append(errs, fmt.Errorf("security_opt: apparmor: %q is not the name of a profile", o.apparmor))
	default:
		errs = append(errs, node.Security.permits("security_opt apparmor", optAppArmor, o.apparmor))
	}
	return errors.Join(errs...)
}

// checkProfile allows profiles of the operator's to all, and a job's own, which can allow everything, by permission.
func (o securityOpt) checkProfile(node Config) error {
	if !filepath.IsAbs(o.seccomp) {
		if !filepath.IsLocal(o.seccomp) {
			return fmt.Errorf("security_opt: seccomp: %q must be a path below the task's directory, such as local/profile.json", o.seccomp)
		}
		return node.Security.permits("security_opt seccomp", optSeccomp, modeCustom)
	}
	if _, _, ok := profileDir(node.Security.SeccompProfiles, o.seccomp); !ok {
		return fmt.Errorf("security_opt: seccomp: %q is not below any of this node's profiles (plugin option seccomp_profiles)", o.seccomp)
	}
	return nil
}

// profileDir finds which of the directories a path is below.
func profileDir(dirs []string, path string) (dir, name string, ok bool) {
	for _, dir := range dirs {
		if name, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(name) && name != "." {
			return dir, name, true
		}
	}
	return "", "", false
}

var sysctlName = regexp.MustCompile(`^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)+$`)

// maxSysctls bounds how many values a task may set.
const maxSysctls = 128

// checkSysctl allows the values that a container has for itself.
func (w SecurityWish) checkSysctl() error {
	if len(w.Sysctl) > maxSysctls {
		return fmt.Errorf("sysctl: more than %d values", maxSysctls)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.Sysctl)) {
		value := w.Sysctl[name]
		switch dotted := strings.ReplaceAll(name, "/", "."); {
		case !sysctlName.MatchString(name):
			errs = append(errs, fmt.Errorf("sysctl: %q is not a name such as net.core.somaxconn", name))
		case len(value) > 256 || strings.ContainsAny(value, "\n\x00"):
			errs = append(errs, fmt.Errorf("sysctl %s: the value must be one line of at most 256 bytes", name))
		case !namespaced(dotted):
			errs = append(errs, fmt.Errorf("sysctl %s: is the host's, and not the container's own; net.*, fs.mqueue.* and kernel's msg*, sem and shm* can be set", name))
		case w.IPCMode == modeHost && !strings.HasPrefix(dotted, "net."):
			errs = append(errs, fmt.Errorf("sysctl %s: is the host's with ipc_mode = \"host\"", name))
		}
	}
	return errors.Join(errs...)
}

func namespaced(name string) bool {
	for _, pattern := range []string{"kernel.msg???", "kernel.sem", "kernel.shm???", "kernel.shm_rmid_forced"} {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return strings.HasPrefix(name, "fs.mqueue.") || strings.HasPrefix(name, "net.")
}

func (w SecurityWish) checkGroups() error {
	for _, name := range w.GroupAdd {
		if name == "" || len(name) > 64 || strings.ContainsAny(name, ": \t\n,") {
			return fmt.Errorf("group_add: %q is not a group's name or number", name)
		}
	}
	return nil
}
