package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"drover/driver"
	"drover/driver/apparmor"
	"drover/driver/seccomp"
)

// selinuxFS is where a kernel that enforces SELinux says so.
const selinuxFS = "/sys/fs/selinux/enforce"

// identityRoot is whom Garden's identity maps root to: the last of all ids, which nobody has.
const identityRoot = 1<<32 - 2

// checkSecurity refuses what does not go together with the rest of the task.
func (r Request) checkSecurity() error {
	w := r.Wish.Security
	switch {
	case w.UTSMode == modeHost && r.Wish.Hostname != "":
		return errors.New("hostname: not possible with uts_mode = \"host\", which has the node's")
	case w.PIDMode == modeHost && (r.Wish.RunInfo || r.Wish.Droplet != ""):
		return errors.New("pid_mode: \"host\" is not possible with droplet and run_info, whose processes need a process 1 of their own")
	}
	for name := range w.Sysctl {
		if r.NetNS == "" && strings.HasPrefix(strings.ReplaceAll(name, "/", "."), "net.") {
			return fmt.Errorf("sysctl %s: is the host's, because the group has no network of its own (network block)", name)
		}
	}
	return nil
}

// reserveIDs chooses the container's ids.
func (s *start) reserveIDs(context.Context) (err error) {
	switch w := s.facts.req.Wish.Security; {
	case w.Privileged || w.UserNS == modeHost:
		return nil
	case w.UserNS == modeIdentity:
		s.facts.ids = driver.IDRange{Host: identityRoot, Size: s.m.node.IDs.Size, Identity: true}
		return nil
	}
	s.facts.ids, err = s.m.pool.Acquire(s.facts.req.AllocID, s.facts.id)
	return err
}

// readProfiles finds out which seccomp and AppArmor profiles the container has.
func (s *start) readProfiles(ctx context.Context) error {
	opt, err := parseSecurityOpt(s.facts.req.Wish.Security.SecurityOpt)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if s.facts.profile, err = s.seccompProfile(opt.seccomp); err != nil {
		return fmt.Errorf("config: security_opt: seccomp: %w", err)
	}
	if s.facts.apparmor, err = s.m.appArmor(ctx, opt.apparmor, s.facts.req.Wish.Security.Privileged); err != nil {
		return fmt.Errorf("config: security_opt: apparmor: %w", err)
	}
	if len(opt.labels) > 0 {
		if _, err := os.Stat(selinuxFS); err != nil {
			return errors.New("config: security_opt: label: this node's kernel has no SELinux")
		}
	}
	if s.facts.req.Wish.Security.UTSMode == modeHost {
		if s.facts.nodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("read the node's name: %w", err)
		}
	}
	return nil
}

// seccompProfile reads a profile that security_opt names, through a root: neither the task nor a template can make it lead
// elsewhere.
func (s *start) seccompProfile(named string) ([]byte, error) {
	dir, name := filepath.Join(s.facts.req.AllocDir, s.facts.req.TaskName), named
	switch {
	case named == "" || named == modeDefault || named == "builtin" || named == modeUnconfined:
		return nil, nil
	case filepath.IsAbs(named):
		dir, name, _ = profileDir(s.m.node.Security.SeccompProfiles, named)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a fifo would hang us
		return nil, fmt.Errorf("%s is not a file", named)
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, seccomp.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if _, err = seccomp.Parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", named, err)
	}
	return text, nil
}

// appArmor returns the name of a container's profile; empty for none.
func (m *Manager) appArmor(ctx context.Context, named string, privileged bool) (string, error) {
	enabled := m.apparmor.Enabled()
	switch {
	case named == apparmor.Unconfined || named == "" && privileged:
		return "", nil
	case named == "" && !enabled:
		return "", nil
	case !enabled:
		return "", fmt.Errorf("%q is not possible: this node's kernel has no AppArmor", named)
	}
	profile := orElse(named, m.node.Security.appArmorProfile())
	if profile == "" {
		return "", nil
	}
	if profile == apparmor.Profile {
		err := m.apparmor.Ensure(ctx)
		if err != nil && named == "" { // the node's health says it; tasks ran before there was AppArmor, too
			m.warnOnce("containers have no AppArmor profile", err)
			return "", nil
		}
		return profile, err
	}
	loaded, err := m.apparmor.Loaded(profile)
	if err == nil && !loaded {
		err = fmt.Errorf("this node has no profile %q loaded", profile)
	}
	return profile, err
}

// AppArmor says whether containers that do not say otherwise have a profile, and, where the kernel could give them one,
// why not.
func (m *Manager) AppArmor(ctx context.Context) (bool, error) {
	profile, err := m.node.Security.appArmorProfile(), error(nil)
	switch {
	case profile == "" || !m.apparmor.Enabled():
		return false, nil
	case profile == apparmor.Profile:
		err = m.apparmor.Ensure(ctx)
	default:
		var loaded bool
		if loaded, err = m.apparmor.Loaded(profile); err == nil && !loaded {
			err = fmt.Errorf("AppArmor profile %s (plugin option apparmor) is not loaded", profile)
		}
	}
	return err == nil, err
}

func (m *Manager) warnOnce(message string, err error) {
	if _, again := m.warned.LoadOrStore(message, true); !again {
		m.log.Warn(message, "error", err)
	}
}

// applySecurity puts into the container what it may do.
func (f facts) applySecurity(c *driver.Container) error {
	s, err := f.req.Wish.Security.resolve(f.node)
	if err != nil {
		return err
	}
	opt, err := parseSecurityOpt(f.req.Wish.Security.SecurityOpt)
	if err != nil {
		return err
	}
	s.Profile, s.AppArmor = f.profile, f.apparmor
	if opt.seccomp == modeUnconfined || s.Privileged && opt.seccomp == "" {
		c.Seccomp = modeOff
	}
	if s.HostUTS {
		c.Hostname = f.nodeName
		c.Hosts = hostsFile(c.Hostname, f.ownIP)
	}
	c.Security = s
	return nil
}
