package task

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"drover/driver/image"
	"drover/driver/login"
)

// PullConfig is an operator's part of: Which image is taken from where, and with whose credentials.
type PullConfig struct {
	// Activity is how long a transfer may bring no byte.
	Activity time.Duration
	// Login is where this node's own users of registries are found.
	Login login.Sources
	// Limits say when images are removed that nobody uses.
	Limits image.Limits
	// Prefetch are images that are pulled at the plugin's start, and kept.
	Prefetch []string
}

// Defaults of PullConfig.
const (
	DefaultGCDelay = 3 * time.Minute
	DefaultGCHigh  = 85
	DefaultGCLow   = 75
)

func (c PullConfig) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Activity <= 0 {
		wrong("pull_activity_timeout: %s must be more than zero", c.Activity)
	}
	if c.Login.File != "" && !cleanAbsolute(c.Login.File) {
		wrong("auth.config: %q must be an absolute path without . or .. in it", c.Login.File)
	}
	if c.Login.Helper != "" {
		if err := login.CheckHelper(c.Login.Helper); err != nil {
			wrong("auth.helper: %w", err)
		}
	}
	if l := c.Limits; l != (image.Limits{}) && (l.Low < 1 || l.Low >= l.High || l.High > 100) {
		wrong("gc: low_watermark (%d) and high_watermark (%d) are percents of the disk, the low one below the high one", l.Low, l.High)
	}
	if c.Limits.Delay < 0 || c.Limits.MaxAge < 0 {
		wrong("gc: image_delay and max_age must not be less than zero")
	}
	for _, ref := range c.Prefetch {
		if ref == "" || strings.ContainsAny(ref, " \t\n") {
			wrong("prefetch: %q is no reference of an image", ref)
		}
	}
	return errors.Join(errs...)
}

// PullWish is a job's part of the same.
type PullWish struct {
	Platform     string
	Force        bool
	AuthSoftFail bool
	// Timeout overrides the node's; zero does not.
	Timeout time.Duration
	// Load is an image archive in the task's directory local.
	Load string
}

func (w PullWish) validate(Config) error {
	var errs []error
	if err := image.CheckPlatform(w.Platform); err != nil {
		errs = append(errs, err)
	}
	if w.Timeout < 0 {
		errs = append(errs, fmt.Errorf("image_pull_timeout: %s must be more than zero", w.Timeout))
	}
	if w.Load != "" && !filepath.IsLocal(w.Load) {
		errs = append(errs, fmt.Errorf("load: %q must be a path below the task's directory local", w.Load))
	}
	return errors.Join(errs...)
}

// layout is the layout that the option image or load names: an archive or directory of this node.
func (w Wish) layout() (image.Layout, bool) {
	if w.Pull.Load != "" {
		return image.Layout{Kind: image.DockerArchive, Path: filepath.Join("local", w.Pull.Load), Ref: w.Image}, true
	}
	kind, rest, _ := strings.Cut(w.Image, ":")
	switch kind {
	case image.DockerArchive, image.OCIArchive, image.OCIDirectory:
		path, ref, _ := strings.Cut(rest, ":")
		return image.Layout{Kind: kind, Path: path, Ref: ref}, strings.Contains(w.Image, ":") && !isPort(kind, path)
	}
	return image.Layout{}, false
}

// isPort says that oci:5000/app is an image of a registry by the name of oci.
func isPort(kind, path string) bool {
	port, _, slash := strings.Cut(path, "/")
	return kind == image.OCIDirectory && slash && port != "" && strings.Trim(port, "0123456789") == ""
}

// validateLayout refuses paths that no job may read.
func (w Wish) validateLayout(node Config) error {
	found, ok := w.layout()
	switch {
	case !ok:
		return nil
	case filepath.IsAbs(found.Path):
		return node.allowsPath("image", found.Path)
	case !filepath.IsLocal(found.Path):
		return fmt.Errorf("image: %q must be below the task's directory, such as local/image.tar, or below this node's allow_host_paths", found.Path)
	}
	return nil
}
