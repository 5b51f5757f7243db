// Package dev is a whole platform on one machine, for as long as a person or a test wants it: Consul, Nomad with
// Drover's driver, an image registry, the bridge, and the smallest Cloud Controller, with certificates of a throw-away
// authority and a private network for containers.
//
// Start brings it up, step by step, and each step knows how to take itself back; Stop takes all of it back, so that no
// process, mount, network device or packet filter rule is left. Apps' bits, droplets and images stay in the state
// directory and run again at the next Start. Other processes find a running platform with Read.
package dev

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"drover/e2e/agent"
)

// StackName is the root file system that buildpack apps are staged and run on.
const StackName = "cflinuxfs4"

// Config says what to bring up. Zero fields take defaults, see WithDefaults.
type Config struct {
	// Dir is the state directory.
	Dir string
	// Bin holds nomad-driver-drover, drover-shim and drover-lifecycle.
	Bin string
	// Cache holds what is slow to make.
	Cache string
	// StackImage or StackRootFS (a directory or a tar archive) replace the Debian root file system.
	StackImage  string
	StackRootFS string
	// DebianMirror is where Debian packages come from; empty for debootstrap's choice.
	DebianMirror string
	// LogLevel of Nomad and of our own services: DEBUG, INFO, WARN or ERROR.
	LogLevel string
	// Progress is told what is going on.
	Progress func(message string)
}

// WithDefaults fills in what was not given: ~/.drover/dev, the directory of this program, and the user's cache.
func (c Config) WithDefaults() (Config, error) {
	if c.Dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return c, err
		}
		c.Dir = dir
	}
	if c.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("find our own program: %w", err)
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return c, fmt.Errorf("find our own program: %w", err)
		}
		c.Bin = filepath.Dir(self)
	}
	if c.Cache == "" {
		cache, err := agent.CacheDir()
		if err != nil {
			return c, err
		}
		c.Cache = cache
	}
	if c.LogLevel == "" {
		c.LogLevel = "INFO"
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	for _, path := range []*string{&c.Dir, &c.Bin, &c.Cache, &c.StackRootFS} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return c, fmt.Errorf("path %s: %w", *path, err)
		}
		*path = absolute
	}
	if c.StackImage != "" && c.StackRootFS != "" {
		return c, errors.New("a stack is an image or a root file system, not both")
	}
	return c, nil
}

// DefaultDir is $DROVER_DEV, else ~/.drover/dev.
func DefaultDir() (string, error) {
	if dir := os.Getenv("DROVER_DEV"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w", err)
	}
	return filepath.Join(home, ".drover", "dev"), nil
}

// tasksDir is where the driver keeps the root file systems of tasks. The root of a container is a user without rights
// on the host and must be able to reach it, which it is not below a private home: then it is below /var/lib.
func (c Config) tasksDir() string {
	if reachable(c.Dir) {
		return c.below("cell", "state")
	}
	sum := sha256.Sum256([]byte(c.Dir))
	return filepath.Join("/var/lib/drover", "dev-"+hex.EncodeToString(sum[:6]))
}

// reachable tells whether everybody may pass the directories above a path.
func reachable(path string) bool {
	for path = filepath.Dir(path); path != "/"; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o001 == 0 {
			return false
		}
	}
	return true
}

// below names a path in the state directory.
func (c Config) below(names ...string) string {
	return filepath.Join(append([]string{c.Dir}, names...)...)
}
