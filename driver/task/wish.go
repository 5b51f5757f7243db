package task

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"unicode"
)

// Wish is what a jobspec's config block asks for.
type Wish struct {
	Image string
	Auth  Auth
	// RootFS is the name of one of the node's stacks, or a path that the operator allows.
	RootFS string
	// Droplet is an http(s) URL or a path that the operator allows.
	Droplet         string
	DropletChecksum string
	Command         string
	Args            []string
	Entrypoint      []string
	WorkDir         string
	Hostname        string
	// RunInfo says that everything else is in driver.RunInfoFile.
	RunInfo        bool
	PIDsLimit      int64
	CPUHardLimit   bool
	ReadOnlyRootFS bool
	// User is the jobspec's task.user.
	User string

	Process  ProcessWish
	Pull     PullWish
	Security SecurityWish
	Storage  StorageWish
	Network  NetworkWish
	Names    NamesWish
	Disk     DiskWish
	Limit    LimitWish
}

// Auth is a registry's user name and password.
type Auth struct {
	Username      string
	Password      string
	ServerAddress string
}

// Validate names every wrong field of the wish, and what is allowed.
func (w Wish) Validate(node Config) error {
	errs := []error{w.validateSource(node)}
	for _, part := range []interface{ validate(node Config) error }{
		w.Process, w.Pull, w.Security, w.Storage, w.Network, w.Names, w.Disk, w.Limit,
	} {
		errs = append(errs, part.validate(node))
	}
	return errors.Join(errs...)
}

func (w Wish) validateSource(node Config) error {
	if w.RunInfo {
		return errors.Join(w.validateRunInfo(), w.validateCommon(node))
	}
	return errors.Join(w.validateRoot(node), w.validateDroplet(node), w.validateCommon(node))
}

func (w Wish) validateRunInfo() error {
	var errs []error
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"image", w.Image != ""}, {"auth", w.Auth != Auth{}}, {"rootfs", w.RootFS != ""}, {"droplet", w.Droplet != ""},
		{"droplet_checksum", w.DropletChecksum != ""}, {"command", w.Command != ""}, {"args", len(w.Args) > 0},
		{"entrypoint", len(w.Entrypoint) > 0}, {"work_dir", w.WorkDir != ""}, {"hostname", w.Hostname != ""},
		{"platform", w.Pull.Platform != ""}, {"load", w.Pull.Load != ""}, {"force_pull", w.Pull.Force}, {"auth_soft_fail", w.Pull.AuthSoftFail},
		{"image_pull_timeout", w.Pull.Timeout != 0},
		{"user (of the task)", w.User != ""}, {"egress", len(w.Network.Egress) > 0},
	} {
		if f.given {
			errs = append(errs, fmt.Errorf("%s: not allowed together with run_info, which says it itself", f.name))
		}
	}
	return errors.Join(errs...)
}

func (w Wish) validateRoot(node Config) error {
	switch {
	case w.Image == "" && w.RootFS == "" && w.Pull.Load == "":
		return fmt.Errorf("one of image, rootfs and run_info must be given; this node's stacks for rootfs are %s", node.stackNames())
	case w.Image != "" && w.RootFS != "":
		return errors.New("image and rootfs: only one of them may be given")
	case w.Auth != Auth{} && w.Image == "":
		return errors.New("auth: allowed with image only")
	case (w.Auth.Username == "") != (w.Auth.Password == ""):
		return errors.New("auth: username and password must be given together")
	case w.Auth.ServerAddress != "" && w.Auth.Username == "":
		return errors.New("auth.server_address: needs username and password")
	case w.RootFS == "":
		return w.validateLayout(node)
	case w.Pull.Load != "":
		return errors.New("load and rootfs: only one of them may be given")
	case filepath.IsAbs(w.RootFS):
		return node.allowsPath("rootfs", w.RootFS)
	}
	if _, ok := node.Stacks[w.RootFS]; !ok {
		return fmt.Errorf("rootfs: this node has no stack %q; it has %s", w.RootFS, node.stackNames())
	}
	return nil
}

func (w Wish) validateDroplet(node Config) error {
	if w.Droplet == "" {
		if w.DropletChecksum != "" {
			return errors.New("droplet_checksum: allowed with droplet only")
		}
		if w.RootFS != "" && w.Command == "" && len(w.Entrypoint) == 0 && node.Stacks[w.RootFS].Image == "" {
			return errors.New("command: must be given with a rootfs that is no image")
		}
		return nil
	}
	if len(w.Args) > 0 || len(w.Entrypoint) > 0 {
		return errors.New("args and entrypoint: not allowed with droplet, whose command is a line for the shell")
	}
	if w.Command == "" && node.Lifecycle == "" {
		return errors.New("command: must be given, because this node's driver has no lifecycle that could find the droplet's own")
	}
	if err := validateChecksum(w.DropletChecksum); err != nil {
		return fmt.Errorf("droplet_checksum: %w", err)
	}
	if isHTTP(w.Droplet) {
		if _, err := url.Parse(w.Droplet); err != nil {
			return errors.New("droplet: not a valid URL")
		}
		return nil
	}
	if !filepath.IsAbs(w.Droplet) {
		return fmt.Errorf("droplet: %q must be an http(s) URL or an absolute path", redact(w.Droplet))
	}
	return node.allowsPath("droplet", w.Droplet)
}

func (w Wish) validateCommon(node Config) error {
	switch {
	case w.PIDsLimit < 0 || w.PIDsLimit > node.MaxPIDs:
		return fmt.Errorf("pids_limit: %d must be between 1 and %d, the most that this node's operator allows", w.PIDsLimit, node.MaxPIDs)
	case w.WorkDir != "" && !filepath.IsAbs(w.WorkDir):
		return fmt.Errorf("work_dir: %q must be an absolute path in the container", w.WorkDir)
	case len(w.Hostname) > 64 || strings.ContainsFunc(w.Hostname, notInHostname):
		return fmt.Errorf("hostname: %q must be at most 64 letters, digits, dots and dashes", w.Hostname)
	case strings.ContainsFunc(w.User, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("user: %q is not a user of a container; give NAME, UID, NAME:GROUP or UID:GID", w.User)
	}
	return nil
}

func notInHostname(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
}

// allowsPath says whether jobs may use a host path. Links are resolved when the path is used, and checked again then.
func (c Config) allowsPath(field, path string) error {
	if filepath.Clean(path) != path {
		return fmt.Errorf("%s: %q must not have . or .. in it", field, path)
	}
	for _, dir := range c.AllowHostPaths {
		if path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") {
			return nil
		}
	}
	if len(c.AllowHostPaths) == 0 {
		return fmt.Errorf("%s: this node's operator allows no host paths (plugin option allow_host_paths)", field)
	}
	return fmt.Errorf("%s: %q is not below any of this node's allow_host_paths: %s", field, path, strings.Join(c.AllowHostPaths, ", "))
}

// resolvePath follows the links of an allowed host path and makes sure that it still is one.
func (c Config) resolvePath(field, path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return real, c.allowsPath(field, real)
}

func (c Config) stackNames() string {
	if len(c.Stacks) == 0 {
		return "none (plugin option stack)"
	}
	return strings.Join(sortedKeys(c.Stacks), ", ")
}

var checksumLengths = map[string]int{"sha256": 32, "sha1": 20, "md5": 16}

func validateChecksum(sum string) error {
	if sum == "" {
		return nil
	}
	alg, value, ok := strings.Cut(sum, ":")
	raw, err := hex.DecodeString(value)
	if !ok || err != nil || checksumLengths[alg] == 0 || len(raw) != checksumLengths[alg] {
		return fmt.Errorf("%q must be sha256:HEX, sha1:HEX or md5:HEX in full length", sum)
	}
	return nil
}

// redact takes out of a URL what may be secret: user information, query and fragment.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
