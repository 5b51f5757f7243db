// Package apparmor gives containers a profile on hosts whose kernel has AppArmor.
//
//	host := apparmor.Host{}
//	if host.Enabled() {
//		err := host.Ensure(ctx) // the kernel has our profile, apparmor.Profile, from now on
//	}
//
// The profile is text that the program apparmor_parser, of the package apparmor of every distribution, compiles and gives
// to the kernel. Where it is missing there is no profile, and the error says so. What the profile denies, other walls deny
// too (a user namespace, no capabilities, read-only mounts): it is there for the day on which one of these has a hole.
package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Profile is the name of our profile.
const Profile = "drover-default"

// Unconfined is AppArmor's name for no profile.
const Unconfined = "unconfined"

// ErrNoParser says that the host has AppArmor, and not the program that loads profiles.
var ErrNoParser = errors.New("apparmor_parser is not installed (package apparmor), so that containers have no AppArmor profile")

//go:embed drover-default
var profile []byte

// loadTimeout bounds how long the parser may take.
const loadTimeout = 30 * time.Second

// Host is a host's AppArmor. The zero value is this host's.
type Host struct {
	// Root is where the host's files are, for tests; empty for /.
	Root string
	// Parser is the program that loads profiles; empty for apparmor_parser of the PATH.
	Parser string

	mu     sync.Mutex
	loaded bool // by this process, which may know a newer text than the kernel
}

func (h *Host) path(name string) string { return filepath.Join("/", h.Root, name) }

// Enabled says whether the kernel has AppArmor.
func (h *Host) Enabled() bool {
	text, err := os.ReadFile(h.path("sys/module/apparmor/parameters/enabled"))
	return err == nil && strings.HasPrefix(string(text), "Y")
}

// Loaded says whether the kernel has a profile, in whatever mode.
func (h *Host) Loaded(name string) (bool, error) {
	text, err := os.ReadFile(h.path("sys/kernel/security/apparmor/profiles"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, errors.New("AppArmor's list of profiles is missing: securityfs is not mounted on /sys/kernel/security")
	}
	if err != nil {
		return false, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		// A line is "NAME (MODE)"; names may have spaces.
		if end := strings.LastIndex(line, " ("); end > 0 && line[:end] == name {
			return true, nil
		}
	}
	return false, nil
}

// Ensure makes sure that the kernel has our profile, and this version of it.
func (h *Host) Ensure(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	there, err := h.Loaded(Profile)
	if err != nil || there && h.loaded {
		return err
	}
	if err := h.load(ctx); err != nil {
		return err
	}
	if there, err = h.Loaded(Profile); err == nil && !there {
		err = fmt.Errorf("apparmor_parser was content, but the kernel has no profile %s", Profile)
	}
	h.loaded = err == nil
	return err
}

func (h *Host) load(ctx context.Context) error {
	parser := h.Parser
	if parser == "" {
		var err error
		if parser, err = findParser(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache")
	cmd.Stdin = bytes.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w: %s", Profile, err, bytes.TrimSpace(out[:min(len(out), 1024)]))
	}
	return nil
}

// findParser also looks where the PATH of some agents does not lead.
func findParser() (string, error) {
	for _, name := range []string{"apparmor_parser", "/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"} {
		if found, err := exec.LookPath(name); err == nil {
			return found, nil
		}
	}
	return "", ErrNoParser
}
