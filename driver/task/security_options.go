package task

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"

	"drover/driver"
	"drover/driver/apparmor"
)

// SecurityConfig is an operator's part of: What a task may do: capabilities, system calls, namespaces that it shares.
type SecurityConfig struct {
	// AllowPrivileged lets jobs ask for everything below, and for privileged containers.
	AllowPrivileged bool
	// AllowCaps are the capabilities that jobs may have, as jobs write them; nil is the default set.
	AllowCaps []string
	// AllowNewPrivileges lets jobs switch no_new_privileges off.
	AllowNewPrivileges bool
	// Modes are what jobs may choose in place of the default, by the option's name.
	Modes map[string][]string
	// SeccompProfiles are directories of profiles that jobs may name.
	SeccompProfiles []string
	// AppArmor is "default", "off", or the name of a profile of the operator's own.
	AppArmor string
}

// Names of options and of their values.
const (
	optUserNS   = "userns"
	optPID      = "pid"
	optIPC      = "ipc"
	optUTS      = "uts"
	optSeccomp  = "seccomp"
	optAppArmor = "apparmor"

	modeHost       = "host"
	modePrivate    = "private"
	modeAuto       = "auto"
	modeIdentity   = "identity"
	modeDefault    = "default"
	modeOff        = "off"
	modeUnconfined = "unconfined"
	modeCustom     = "custom"
)

func (c SecurityConfig) validate() error {
	var errs []error
	if _, _, err := c.allowedCaps(); err != nil {
		errs = append(errs, err)
	}
	for _, m := range []struct {
		option string
		modes  []string
	}{
		{optUserNS, []string{modeHost, modeIdentity}},
		{optPID, []string{modeHost}}, {optIPC, []string{modeHost}}, {optUTS, []string{modeHost}},
		{optSeccomp, []string{modeUnconfined, modeCustom}},
	} {
		for _, mode := range c.Modes[m.option] {
			if !slices.Contains(m.modes, mode) {
				errs = append(errs, fmt.Errorf("allowed_modes.%s: %q is not known; %s can be allowed", m.option, mode, strings.Join(m.modes, " and ")))
			}
		}
	}
	for _, name := range append(slices.Clone(c.Modes[optAppArmor]), c.AppArmor) {
		if !profileName(name) {
			errs = append(errs, fmt.Errorf("%q is not the name of an AppArmor profile", name))
		}
	}
	for _, dir := range c.SeccompProfiles {
		if !cleanAbsolute(dir) {
			errs = append(errs, fmt.Errorf("seccomp_profiles: %q must be an absolute path without . or .. in it", dir))
		}
	}
	return errors.Join(errs...)
}

// permits says whether jobs may choose a mode.
func (c SecurityConfig) permits(field, option, mode string) error {
	if c.AllowPrivileged || slices.Contains(c.Modes[option], mode) {
		return nil
	}
	return fmt.Errorf("%s: %q is not allowed on this node; its operator can allow it (plugin option allowed_modes { %s = [%q] } or allow_privileged)",
		field, mode, option, mode)
}

// capAll stands for every capability.
const capAll = "ALL"

// capName is a capability's canonical name, of what people write: with CAP_ or without, in any case.
func capName(text string) (string, error) {
	name := strings.ToUpper(strings.TrimSpace(text))
	if name == capAll || name == "CAP_"+capAll {
		return capAll, nil
	}
	name = "CAP_" + strings.TrimPrefix(name, "CAP_")
	if !slices.Contains(knownCaps(), name) {
		return "", fmt.Errorf("%q is not a capability", text)
	}
	return name, nil
}

func knownCaps() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

// allowedCaps lists what jobs may have; all says that there is no limit.
func (c SecurityConfig) allowedCaps() (allowed []string, all bool, err error) {
	if c.AllowCaps == nil {
		return driver.DefaultCapabilities(), false, nil
	}
	for _, text := range c.AllowCaps {
		name, err := capName(text)
		if err != nil {
			return nil, false, fmt.Errorf("allow_caps: %w", err)
		}
		if name == capAll {
			return knownCaps(), true, nil
		}
		allowed = append(allowed, name)
	}
	return allowed, false, nil
}

// profileName says whether a text can be the name of an AppArmor profile; empty means none is given.
func profileName(text string) bool {
	return len(text) <= 256 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// appArmorProfile is the profile of containers whose job says nothing: empty for none.
func (c SecurityConfig) appArmorProfile() string {
	switch c.AppArmor {
	case "", modeDefault:
		return apparmor.Profile
	case modeOff, modeUnconfined:
		return ""
	}
	return c.AppArmor
}
