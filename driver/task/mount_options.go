package task

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"drover/driver"
)

// HostPath is a directory of the host that an operator lets jobs name.
type HostPath struct {
	Dir string
	// ReadOnly: jobs may mount what is below it read-only.
	ReadOnly bool
	// Shared: jobs may mount it so that mounts of their containers appear on the host.
	Shared bool
}

// ParseHostPath reads an entry of allow_host_paths: a directory, with :ro or :shared behind it or without.
func ParseHostPath(entry string) HostPath {
	if dir, ok := strings.CutSuffix(entry, ":ro"); ok {
		return HostPath{Dir: dir, ReadOnly: true}
	}
	if dir, ok := strings.CutSuffix(entry, ":shared"); ok {
		return HostPath{Dir: dir, Shared: true}
	}
	return HostPath{Dir: entry}
}

// hostPath returns the innermost permitted directory that a path is below, and nothing when there is none.
func (c StorageConfig) hostPath(name string) HostPath {
	var found HostPath
	for _, allowed := range c.HostPaths {
		if isBelow(allowed.Dir, name) && len(allowed.Dir) > len(found.Dir) {
			found = allowed
		}
	}
	return found
}

func isBelow(dir, name string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// MountWish is a mount that a job asks for, however it is written.
type MountWish struct {
	// Field is what the job calls it, for errors.
	Field string
	// Type is bind, tmpfs or volume.
	Type string
	// Source is an absolute path of the host, or one relative to the task's directory.
	Source   string
	Target   string
	ReadOnly bool
	// Create makes a missing directory below the task's.
	Create bool
	// Propagation is one of private, slave, shared, or the same with an r in front.
	Propagation string
	SizeBytes   int64
	Mode        uint32
	// Exec lets programs of a tmpfs run.
	Exec bool
}

const (
	mountBind   = "bind"
	mountTmpfs  = "tmpfs"
	mountVolume = "volume"
	// defaultTmpfs is the size of a tmpfs in a task without a limit of memory.
	defaultTmpfs     = 64 << 20
	defaultTmpfsMode = 0o1777
	maxMode          = 0o7777
)

// ParseVolume reads Docker's source:target[:options].
func ParseVolume(text string) (MountWish, error) {
	m := MountWish{Field: "volumes", Type: mountBind, Create: true}
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return m, fmt.Errorf("volumes: %q is not SOURCE:TARGET or SOURCE:TARGET:OPTIONS", text)
	}
	m.Source, m.Target = parts[0], parts[1]
	if len(parts) == 2 {
		return m, nil
	}
	for option := range strings.SplitSeq(parts[2], ",") {
		switch option {
		case "ro":
			m.ReadOnly = true
		case "rw":
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			m.Propagation = option
		case "z", "Z":
			return m, fmt.Errorf("volumes: %q: option %s is not supported: this driver changes no SELinux labels of the host's files", text, option)
		default:
			return m, fmt.Errorf("volumes: %q: option %q is not one of ro, rw, private, rprivate, slave, rslave, shared, rshared", text, option)
		}
	}
	return m, nil
}

// ParseTmpfs reads podman's target[:options].
func ParseTmpfs(text string) (MountWish, error) {
	target, options, _ := strings.Cut(text, ":")
	m := MountWish{Field: "tmpfs", Type: mountTmpfs, Target: target}
	if options == "" {
		return m, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "size":
			m.SizeBytes, err = parseSize(value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 32)
			m.Mode = uint32(mode)
		case "exec":
			m.Exec = true
		case "ro":
			m.ReadOnly = true
		case "rw", "noexec", "nosuid", "nodev": // so it is
		default:
			err = errors.New("want one of size, mode, exec, noexec, ro, rw, nosuid, nodev")
		}
		if err != nil {
			return m, fmt.Errorf("tmpfs: %q: option %q: %w", text, option, err)
		}
	}
	return m, nil
}

// parseSize reads a number of bytes, with k, m or g behind it or without.
func parseSize(text string) (int64, error) {
	shift := 0
	if n := len(text); n > 0 {
		shift = map[byte]int{'k': 10, 'm': 20, 'g': 30}[text[n-1]|0x20]
		if shift > 0 {
			text = text[:n-1]
		}
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size <= 0 || size > 1<<50>>shift {
		return 0, errors.New("want a number of bytes, with k, m or g behind it or without")
	}
	return size << shift, nil
}

func (m MountWish) validate(node Config) error {
	if err := m.validateTarget(); err != nil {
		return err
	}
	switch m.Type {
	case mountTmpfs:
		return m.validateTmpfs()
	case mountVolume, "":
		return fmt.Errorf("%s at %s: type %q is not supported, since there is no daemon that would keep volumes by name; "+
			"use a volume of the group with volume_mount, or type = \"bind\" with a source below the task's directory", m.Field, m.Target, m.Type)
	case mountBind:
	default:
		return fmt.Errorf("%s at %s: type %q is neither \"bind\" nor \"tmpfs\"", m.Field, m.Target, m.Type)
	}
	if m.SizeBytes != 0 || m.Mode != 0 {
		return fmt.Errorf("%s at %s: tmpfs_options are for type \"tmpfs\"", m.Field, m.Target)
	}
	switch m.Propagation {
	case "", "private", "rprivate", "slave", "rslave", "shared", "rshared":
	default:
		return fmt.Errorf("%s at %s: propagation %q is not one of private, rprivate, slave, rslave, shared, rshared", m.Field, m.Target, m.Propagation)
	}
	if m.Source == "" {
		return fmt.Errorf("%s at %s: source must be given", m.Field, m.Target)
	}
	if !filepath.IsAbs(m.Source) {
		return m.validateRelative()
	}
	return m.validateHostPath(node)
}

// validateTarget: what the driver itself puts into the container is not to be covered.
func (m MountWish) validateTarget() error {
	target := m.Target
	if !path.IsAbs(target) || path.Clean(target) != target || target == "/" {
		return fmt.Errorf("%s: target %q must be an absolute path below /, without . or .. in it", m.Field, target)
	}
	for _, own := range []string{"/proc", "/sys", "/.drover", "/alloc/logs"} {
		if isBelow(own, target) {
			return fmt.Errorf("%s: target %q: nothing may be mounted at or below %s", m.Field, target, own)
		}
	}
	if slices.Contains([]string{"/dev", "/alloc", "/local", "/secrets"}, target) {
		return fmt.Errorf("%s: target %q is the driver's own", m.Field, target)
	}
	return nil
}

func (m MountWish) validateTmpfs() error {
	switch {
	case m.Source != "":
		return fmt.Errorf("%s at %s: a tmpfs has no source", m.Field, m.Target)
	case m.Propagation != "":
		return fmt.Errorf("%s at %s: bind_options are for type \"bind\"", m.Field, m.Target)
	case m.SizeBytes < 0 || m.Mode > maxMode:
		return fmt.Errorf("%s at %s: size must be more than zero, and mode at most 7777 in octal", m.Field, m.Target)
	}
	return nil
}

// validateRelative: a task may mount what is its own or shared by its allocation. What the driver keeps from it stays so:
// the run info and secrets of other tasks, and that its log files are not for it to write.
func (m MountWish) validateRelative() error {
	where, rest := m.split()
	first, _, _ := strings.Cut(rest, "/")
	if m.Propagation != "" && strings.TrimPrefix(m.Propagation, "r") != "private" {
		return fmt.Errorf("%s at %s: propagation %s needs a source that is an absolute path", m.Field, m.Target, m.Propagation)
	}
	switch {
	case where == ".." || rest == "" || rest == ".":
		return fmt.Errorf("%s at %s: source %q must be a path below the task's directory, or below ../alloc", m.Field, m.Target, m.Source)
	case where == sharedAlloc && first == "logs" && !m.ReadOnly:
		return fmt.Errorf("%s at %s: source %q: logs are read-only for tasks; add readonly", m.Field, m.Target, m.Source)
	case where == "" && first == "private":
		return fmt.Errorf("%s at %s: source %q: no container sees the task's private directory", m.Field, m.Target, m.Source)
	}
	return nil
}

// split says where a relative source is: "" in the task's directory, sharedAlloc in the allocation's shared one, and ".."
// elsewhere; and its path there.
func (m MountWish) split() (where, rest string) {
	clean := path.Clean(m.Source)
	if below, ok := strings.CutPrefix(clean, "../"+sharedAlloc); ok && (below == "" || below[0] == '/') {
		return sharedAlloc, strings.TrimPrefix(below, "/")
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "..", clean
	}
	return "", clean
}

func (m MountWish) validateHostPath(node Config) error {
	if err := node.allowsPath(m.Field, m.Source); err != nil {
		return err
	}
	allowed := node.Storage.hostPath(m.Source)
	switch {
	case allowed.ReadOnly && !m.ReadOnly:
		return fmt.Errorf("%s at %s: this node's operator allows %s read-only; add readonly", m.Field, m.Target, allowed.Dir)
	case strings.HasSuffix(m.Propagation, "shared") && !allowed.Shared:
		return fmt.Errorf("%s at %s: propagation %s would let the task mount things on the host, which this node's operator does not allow "+
			"(\"%s:shared\" in plugin option allow_host_paths would)", m.Field, m.Target, m.Propagation, allowed.Dir)
	}
	return nil
}

// mount is the wish as the shim gets it.
func (f facts) mount(m MountWish) driver.Mount {
	if m.Type == mountTmpfs {
		size, mode := m.SizeBytes, m.Mode
		if size == 0 {
			size = defaultTmpfs
			if limit := limits(f.req.Resources, 1, false, f.cpus).MemoryBytes; limit > 0 {
				size = limit / 2
			}
		}
		if mode == 0 {
			mode = defaultTmpfsMode
		}
		return driver.Mount{Target: m.Target, ReadOnly: m.ReadOnly, NoExec: !m.Exec, Tmpfs: &driver.Tmpfs{SizeBytes: size, Mode: mode}}
	}
	mount := driver.Mount{Target: m.Target, ReadOnly: m.ReadOnly, IDMapped: true, Recursive: true}
	if filepath.IsAbs(m.Source) {
		allowed := f.node.Storage.hostPath(m.Source)
		mount.Base, mount.Source = allowed.Dir, m.Source
		mount.Propagation = propagation(m.Propagation)
		return mount
	}
	where, rest := m.split()
	if where == "" {
		where = f.req.TaskName
		mount.NoExec = isBelow("secrets", rest) // as /secrets is
	}
	mount.Base = f.req.AllocDir
	mount.Source, mount.Create = filepath.Join(mount.Base, where, rest), m.Create
	return mount
}

// propagation translates Docker's words; that what is mounted below comes along is always so.
func propagation(word string) string {
	switch strings.TrimPrefix(word, "r") {
	case "slave":
		return driver.PropagationSlave
	case "shared":
		return driver.PropagationShared
	}
	return ""
}

// imageVolumes are the directories that an image declares as volumes, when / is read-only and nothing else is mounted
// there: writable, as Docker's are.
func (f facts) imageVolumes(taken []driver.Mount) []driver.Mount {
	if !f.req.Wish.ReadOnlyRootFS {
		return nil
	}
	var list []driver.Mount
	for _, volume := range f.image.Volumes {
		target := path.Clean("/" + volume)
		m := MountWish{Field: "volume of the image", Target: target}
		mounted := slices.ContainsFunc(taken, func(t driver.Mount) bool { return path.Clean(t.Target) == target })
		if mounted || m.validateTarget() != nil {
			continue
		}
		list = append(list, driver.Mount{Target: target, Image: true})
	}
	return list
}
