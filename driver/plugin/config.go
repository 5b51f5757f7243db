package plugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"drover/driver"
	"drover/driver/task"
)

// config is the agent's plugin block as the schema decodes it.
type config struct {
	Enabled             bool                   `codec:"enabled"`
	StateDir            string                 `codec:"state_dir"`
	ImageDir            string                 `codec:"image_dir"`
	Shim                string                 `codec:"shim"`
	DefaultUser         string                 `codec:"default_user"`
	AllowHostPaths      []string               `codec:"allow_host_paths"`
	InsecureRegistries  []string               `codec:"insecure_registries"`
	TrustedCertificates string                 `codec:"trusted_certificates"`
	Lifecycle           string                 `codec:"lifecycle"`
	PIDsLimit           int64                  `codec:"pids_limit"`
	MaxPIDsLimit        int64                  `codec:"max_pids_limit"`
	ImagePullTimeout    string                 `codec:"image_pull_timeout"`
	Seccomp             string                 `codec:"seccomp"`
	Stacks              map[string]stackConfig `codec:"stack"`
	UserNS              userNSConfig           `codec:"userns"`
	TLS                 tlsConfig              `codec:"tls"`
}

type stackConfig struct {
	Image  string `codec:"image"`
	RootFS string `codec:"rootfs"`
}

type userNSConfig struct {
	HostBase uint32 `codec:"host_base"`
	Size     uint32 `codec:"size"`
	Count    uint32 `codec:"count"`
}

type tlsConfig struct {
	CA   string `codec:"ca_file"`
	Cert string `codec:"cert_file"`
	Key  string `codec:"key_file"`
}

// node fills in the defaults and checks the rest.
func (c config) node() (task.Config, error) {
	n := task.Config{
		StateDir:            or(c.StateDir, task.DefaultStateDir),
		ImageDir:            or(c.ImageDir, task.DefaultImageDir),
		Shim:                or(c.Shim, findShim()),
		Stacks:              map[string]task.Stack{},
		IDs:                 task.IDs{HostBase: or(c.UserNS.HostBase, task.DefaultHostBase), Size: or(c.UserNS.Size, task.DefaultIDSize), Count: or(c.UserNS.Count, task.DefaultIDCount)},
		DefaultUser:         c.DefaultUser,
		AllowHostPaths:      c.AllowHostPaths,
		InsecureRegistries:  c.InsecureRegistries,
		TLS:                 driver.TLSFiles{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key},
		TrustedCertificates: c.TrustedCertificates,
		Lifecycle:           c.Lifecycle,
		MaxPIDs:             or(c.MaxPIDsLimit, task.DefaultMaxPIDs),
		PullTimeout:         task.DefaultPullTimeout,
		Seccomp:             or(c.Seccomp, "default"),
	}
	n.PIDs = or(c.PIDsLimit, min(task.DefaultPIDs, n.MaxPIDs))
	for name, s := range c.Stacks {
		n.Stacks[name] = task.Stack{Image: s.Image, RootFS: s.RootFS}
	}
	if c.ImagePullTimeout != "" {
		timeout, err := time.ParseDuration(c.ImagePullTimeout)
		if err != nil {
			return n, fmt.Errorf("image_pull_timeout: %q is not a duration such as \"15m\"", c.ImagePullTimeout)
		}
		n.PullTimeout = timeout
	}
	return n, n.Validate()
}

// shimName is the program that keeps a task; it is looked for beside the plugin, then on the PATH.
const shimName = "drover-shim"

func findShim() string {
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), shimName)
			if _, err := os.Stat(beside); err == nil {
				return beside
			}
		}
	}
	if found, err := exec.LookPath(shimName); err == nil {
		return found
	}
	return ""
}

func or[T comparable](value, other T) T {
	var zero T
	if value == zero {
		return other
	}
	return value
}

// taskConfig is a task's config block as the schema decodes it.
type taskConfig struct {
	Image           string     `codec:"image"`
	Auth            authConfig `codec:"auth"`
	RootFS          string     `codec:"rootfs"`
	Droplet         string     `codec:"droplet"`
	DropletChecksum string     `codec:"droplet_checksum"`
	Command         string     `codec:"command"`
	Args            []string   `codec:"args"`
	Entrypoint      []string   `codec:"entrypoint"`
	WorkDir         string     `codec:"work_dir"`
	Hostname        string     `codec:"hostname"`
	RunInfo         bool       `codec:"run_info"`
	PIDsLimit       int64      `codec:"pids_limit"`
	CPUHardLimit    bool       `codec:"cpu_hard_limit"`
	ReadOnlyRootFS  bool       `codec:"readonly_rootfs"`
}

type authConfig struct {
	Username      string `codec:"username"`
	Password      string `codec:"password"`
	ServerAddress string `codec:"server_address"`
}

func (c taskConfig) wish(user string) task.Wish {
	return task.Wish{
		Image:           c.Image,
		Auth:            task.Auth(c.Auth),
		RootFS:          c.RootFS,
		Droplet:         c.Droplet,
		DropletChecksum: c.DropletChecksum,
		Command:         c.Command,
		Args:            c.Args,
		Entrypoint:      c.Entrypoint,
		WorkDir:         c.WorkDir,
		Hostname:        c.Hostname,
		RunInfo:         c.RunInfo,
		PIDsLimit:       c.PIDsLimit,
		CPUHardLimit:    c.CPUHardLimit,
		ReadOnlyRootFS:  c.ReadOnlyRootFS,
		User:            user,
	}
}
