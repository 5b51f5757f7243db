package task

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"drover/driver"
)

// Config is what a node's operator decided.
type Config struct {
	// StateDir holds one directory per task, and who uses which ids.
	StateDir string
	// ImageDir holds unpacked images and droplets by digest.
	ImageDir string
	// Shim is the path of drover-shim.
	Shim string
	// Stacks maps the names that jobs may use as root file system to what they are.
	Stacks map[string]Stack
	IDs    IDs
	// DefaultUser is who runs images and stacks when neither job nor droplet says; empty means the image's USER.
	DefaultUser string
	// AllowHostPaths lists directories from which jobs may use root file systems and droplets by path.
	AllowHostPaths []string
	// InsecureRegistries are registries (host:port) spoken to in plain http.
	InsecureRegistries []string
	// TLS is the node's client certificate for droplets and lifecycles.
	TLS driver.TLSFiles
	// TrustedCertificates is a directory of PEM files, or one such file, that apps see as the platform's trusted certificates.
	TrustedCertificates string
	// Lifecycle is the path or URL of the archive that holds the launcher for hand-written droplet jobs.
	Lifecycle string
	// PIDs is the limit of processes of a task that says nothing, MaxPIDs the most that one may say.
	PIDs, MaxPIDs int64
	// PullTimeout bounds how long fetching all parts of one task's root file system may take.
	PullTimeout time.Duration
	// OrphanGrace is how long what nobody asks for is left alone; see Sweep.
	OrphanGrace time.Duration
	// Seccomp is "default" or "off".
	Seccomp string

	Process  ProcessConfig
	Pull     PullConfig
	Security SecurityConfig
	Storage  StorageConfig
	Network  NetworkConfig
	Disk     DiskConfig
	Limit    LimitConfig
}

// Stack is a root file system with a name: an image reference, or a directory of the host.
type Stack struct {
	Image  string
	RootFS string
}

// IDs is the operator's pool of host ids. The first range holds what is stored on disk, the next Count are given to
// allocations.
type IDs struct {
	HostBase uint32
	Size     uint32
	Count    uint32
}

// Defaults of a Config that says nothing.
const (
	DefaultStateDir    = "/var/lib/drover/state"
	DefaultImageDir    = "/var/lib/drover/images"
	DefaultHostBase    = 1 << 30
	DefaultIDSize      = 1 << 16
	DefaultIDCount     = 8192
	DefaultPIDs        = 1024
	DefaultMaxPIDs     = 32768
	DefaultPullTimeout = 15 * time.Minute
	defaultNoFile      = 16384
	minIDSize          = 1 << 16
	trustedCertsTarget = "/etc/cf-system-certificates"
)

// Stored returns the range in which images and droplets are kept on disk.
func (i IDs) Stored() driver.IDRange { return driver.IDRange{Host: i.HostBase, Size: i.Size} }

// Slot returns the n-th range that may be given to an allocation, counted from 0.
func (i IDs) Slot(n uint32) driver.IDRange {
	return driver.IDRange{Host: i.HostBase + (n+1)*i.Size, Size: i.Size}
}

// Validate names every wrong field of the configuration, and what it may be.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, p := range []struct{ field, path string }{
		{"state_dir", c.StateDir}, {"image_dir", c.ImageDir}, {"shim", c.Shim},
		{"tls.ca_file", c.TLS.CA}, {"tls.cert_file", c.TLS.Cert}, {"tls.key_file", c.TLS.Key},
		{"trusted_certificates", c.TrustedCertificates},
	} {
		if p.path != "" && !cleanAbsolute(p.path) {
			wrong("%s: %q must be an absolute path without . or .. in it", p.field, p.path)
		}
	}
	for _, dir := range c.AllowHostPaths {
		if !cleanAbsolute(dir) {
			wrong("allow_host_paths: %q must be an absolute path without . or .. in it", dir)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		wrong("tls: cert_file and key_file must be given together")
	}
	if c.Lifecycle != "" && !cleanAbsolute(c.Lifecycle) && !isHTTP(c.Lifecycle) {
		wrong("lifecycle: %q must be an absolute path or an http(s) URL", redact(c.Lifecycle))
	}
	if c.Seccomp != "default" && c.Seccomp != "off" {
		wrong("seccomp: %q is neither \"default\" nor \"off\"", c.Seccomp)
	}
	if c.PIDs < 1 || c.MaxPIDs < 1 || c.PIDs > c.MaxPIDs {
		wrong("pids_limit: default %d must be at least 1 and at most max_pids_limit (%d)", c.PIDs, c.MaxPIDs)
	}
	if c.PullTimeout <= 0 {
		wrong("image_pull_timeout: %s must be more than zero", c.PullTimeout)
	}
	if c.OrphanGrace <= 0 {
		wrong("orphan_grace: %s must be more than zero", c.OrphanGrace)
	}
	errs = append(errs, c.IDs.validate(), validateStacks(c.Stacks))
	for _, part := range []interface{ validate() error }{
		c.Process, c.Pull, c.Security, c.Storage, c.Network, c.Disk, c.Limit,
	} {
		errs = append(errs, part.validate())
	}
	return errors.Join(errs...)
}

func (i IDs) validate() error {
	switch {
	case i.HostBase < 1<<16:
		return fmt.Errorf("userns.host_base: %d must be at least 65536, so that no container shares ids with the host", i.HostBase)
	case i.Size < minIDSize:
		return fmt.Errorf("userns.size: %d must be at least %d", i.Size, minIDSize)
	case i.Count < 1:
		return errors.New("userns.count: must be at least 1, or no task could run")
	case uint64(i.HostBase)+(uint64(i.Count)+1)*uint64(i.Size) > math.MaxUint32:
		return fmt.Errorf("userns: host_base + size × (count + 1) must stay below 2^32; at most count = %d fits",
			(math.MaxUint32-uint64(i.HostBase))/uint64(i.Size)-1)
	}
	return nil
}

func validateStacks(stacks map[string]Stack) error {
	var errs []error
	for _, name := range sortedKeys(stacks) {
		stack := stacks[name]
		switch {
		case name == "" || strings.ContainsAny(name, "/: \t\n"):
			errs = append(errs, fmt.Errorf("stack %q: a name has no slash, colon or space", name))
		case (stack.Image == "") == (stack.RootFS == ""):
			errs = append(errs, fmt.Errorf("stack %q: exactly one of image and rootfs must be given", name))
		case stack.RootFS != "" && !cleanAbsolute(stack.RootFS):
			errs = append(errs, fmt.Errorf("stack %q: rootfs: %q must be an absolute path without . or .. in it", name, stack.RootFS))
		}
	}
	return errors.Join(errs...)
}

func cleanAbsolute(p string) bool { return filepath.IsAbs(p) && filepath.Clean(p) == p }

func isHTTP(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
