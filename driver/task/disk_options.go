package task

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"drover/driver"
	"drover/driver/quota"
)

// DiskConfig is an operator's part of how much tasks may write to the host's disks.
type DiskConfig struct {
	// Default and Max are sizes, or Unlimited.
	Default, Max string
	// Inodes is both default and maximum; zero is DefaultInodes, or DefaultWorkInodes for Cloud Foundry's work.
	Inodes int64
	// Scope is ScopeExclusive, ScopeTotal or empty: exclusive, but total for Cloud Foundry's work.
	Scope string
	// ProjectBase is the first of ProjectCount project ids.
	ProjectBase int64
}

// Values of a DiskConfig.
const (
	DefaultDisk        = "10G"
	DefaultMaxDisk     = "100G"
	DefaultInodes      = 1_000_000
	DefaultWorkInodes  = 200_000
	DefaultProjectBase = 1 << 30
	ProjectCount       = 1 << 16
	Unlimited          = "unlimited"
	ScopeExclusive     = "exclusive"
	ScopeTotal         = "total"
)

// parseLimit reads a size or Unlimited, which is 0, as is an empty text.
func parseLimit(text string) (int64, error) {
	if text == Unlimited || text == "" {
		return 0, nil
	}
	return parseDisk(text)
}

// parseDisk reads a size that is a limit.
func parseDisk(text string) (int64, error) {
	size, err := parseBytes(text)
	switch {
	case err != nil:
		return 0, err
	case size == 0:
		return 0, fmt.Errorf("%q must be more than zero", text)
	case size > quota.MaxBytes:
		return 0, fmt.Errorf("%q is more than the largest limit, %s", text, quota.FormatSize(quota.MaxBytes))
	}
	return size, nil
}

func (c DiskConfig) validate() error {
	var errs []error
	preset, err := parseLimit(c.Default)
	if err != nil {
		errs = append(errs, fmt.Errorf("disk.default: %w", err))
	}
	most, err := parseLimit(c.Max)
	if err != nil {
		errs = append(errs, fmt.Errorf("disk.max: %w", err))
	}
	if preset > most && most > 0 {
		errs = append(errs, fmt.Errorf("disk.default: %s is more than disk.max, %s", c.Default, c.Max))
	}
	if c.Inodes < 0 || c.Inodes > quota.MaxInodes {
		errs = append(errs, fmt.Errorf("disk.inodes: %d must be between 1 and %d", c.Inodes, quota.MaxInodes))
	}
	if c.Scope != "" && c.Scope != ScopeExclusive && c.Scope != ScopeTotal {
		errs = append(errs, fmt.Errorf("disk.scope: %q is neither %q nor %q", c.Scope, ScopeExclusive, ScopeTotal))
	}
	if c.ProjectBase < 0 || c.ProjectBase > math.MaxUint32-ProjectCount {
		errs = append(errs, fmt.Errorf("disk.project_id_base: %d must be between 1 and %d", c.ProjectBase, math.MaxUint32-ProjectCount))
	}
	return errors.Join(errs...)
}

// DiskWish is a job's part of the same.
type DiskWish struct {
	// Options are storage_opt's: size and inodes.
	Options map[string]string
}

func (w DiskWish) validate(node Config) error {
	_, err := w.limit(node.Disk)
	return err
}

// limit returns what the wish asks for; zero where it says nothing.
func (w DiskWish) limit(node DiskConfig) (quota.Amount, error) {
	var limit quota.Amount
	var errs []error
	for _, name := range sortedKeys(w.Options) {
		var err error
		switch value := w.Options[name]; name {
		case "size":
			limit.Bytes, err = node.size(value)
		case "inodes":
			limit.Inodes, err = node.inodes(value)
		default:
			err = errors.New("is not known; size and inodes are")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("storage_opt.%s: %w", name, err))
		}
	}
	return limit, errors.Join(errs...)
}

func (c DiskConfig) size(text string) (int64, error) {
	size, err := parseDisk(text)
	if err != nil {
		return 0, err
	}
	return size, c.allows(size)
}

func (c DiskConfig) allows(size int64) error {
	if most, err := parseLimit(c.Max); err == nil && most > 0 && size > most {
		return fmt.Errorf("%s is more than this node's operator allows, %s (plugin option disk.max)", quota.FormatSize(size), quota.FormatSize(most))
	}
	return nil
}

func (c DiskConfig) inodes(text string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	most := c.Inodes
	if most == 0 {
		most = DefaultInodes
	}
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q must be a whole number between 1 and %d (plugin option disk.inodes)", text, most)
	}
	return n, nil
}

// diskLimit is how much the task may use: what its definition or its wish says, else the node's default.
func (f facts) diskLimit() (quota.Amount, error) {
	limit, err := f.req.Wish.Disk.limit(f.node.Disk)
	if err != nil {
		return limit, err
	}
	if f.info != nil && limit.Bytes == 0 && f.def.diskMB != 0 {
		if limit.Bytes = f.def.diskMB << 20; limit.Bytes < 0 {
			return limit, fmt.Errorf("disk_mb: %d must not be negative", f.def.diskMB)
		}
		if err := f.node.Disk.allows(limit.Bytes); err != nil {
			return limit, fmt.Errorf("disk_mb: %w", err)
		}
	}
	if limit.Bytes == 0 {
		if limit.Bytes, err = parseLimit(f.node.Disk.Default); err != nil {
			return limit, err
		}
	}
	if limit.Inodes == 0 {
		limit.Inodes = f.node.Disk.Inodes
	}
	if limit.Inodes == 0 && f.node.Disk != (DiskConfig{}) {
		limit.Inodes = DefaultInodes
		if f.info != nil {
			limit.Inodes = DefaultWorkInodes
		}
	}
	return limit, nil
}

// counted lists the layers whose size is part of the task's use. A stack is the platform's, whoever counts.
func (f facts) counted(stack int) []driver.Layer {
	scope := f.node.Disk.Scope
	switch {
	case scope == ScopeTotal:
		return f.layers
	case scope == "" && f.info != nil:
		return f.layers[min(stack, len(f.layers)):]
	}
	return nil
}

// applyDisk puts into the container how much it may write.
func (f facts) applyDisk(c *driver.Container) error {
	limit, err := f.diskLimit()
	if err != nil {
		return err
	}
	if limit.Bytes > 0 {
		if f.imageUse >= limit.Bytes {
			return fmt.Errorf("%w: the image alone takes %s of %s", quota.ErrTooMuch, quota.FormatSize(f.imageUse), quota.FormatSize(limit.Bytes))
		}
		limit.Bytes -= f.imageUse
	}
	c.Disk = driver.Disk{Bytes: limit.Bytes, Inodes: limit.Inodes, Project: f.project}
	if limit == (quota.Amount{}) {
		return nil
	}
	for n, m := range c.Mounts {
		c.Mounts[n].Counted = m.Counted || m.Target == "/local"
	}
	return nil
}
