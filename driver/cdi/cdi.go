// Package cdi reads what vendors say of their devices in the Container Device Interface's files: which nodes, mounts and
// variables a container needs in order to use one.
//
//	edits, err := cdi.Find([]string{"/etc/cdi", "/var/run/cdi"}, []string{"vendor.com/class=name"})
//
// The files are the operator's. Of two directories the later one wins, as the interface has it; within one, a device has
// one file. Whatever of a file this package does not know or this driver does not do is refused by name, hooks above all:
// they are programs of the host that would run with rights over the container.
//
// The interface's own library would bring a watcher of files, a validator of schemas and a generator of specifications;
// a file is read here when a task starts, and nothing is kept.
package cdi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"drover/driver"
)

// maxFile bounds one file.
const maxFile = 4 << 20

// ErrUnknown is a device that no file describes.
var ErrUnknown = errors.New("no such device")

var name = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$`)

// IsName says whether a text is the full name of a device, VENDOR/CLASS=NAME.
func IsName(text string) bool { return name.MatchString(text) }

// Edits are what devices need.
type Edits struct {
	Env     []string
	Devices []driver.Device
	Mounts  []driver.Mount
}

// spec is one file.
type spec struct {
	Version     string            `yaml:"cdiVersion"`
	Kind        string            `yaml:"kind"`
	Annotations map[string]string `yaml:"annotations"`
	Devices     []device          `yaml:"devices"`
	Edits       edits             `yaml:"containerEdits"`
	path        string
}

type device struct {
	Name        string            `yaml:"name"`
	Annotations map[string]string `yaml:"annotations"`
	Edits       edits             `yaml:"containerEdits"`
}

type edits struct {
	Env            []string `yaml:"env"`
	DeviceNodes    []node   `yaml:"deviceNodes"`
	NetDevices     []any    `yaml:"netDevices"`
	Mounts         []mount  `yaml:"mounts"`
	Hooks          []hook   `yaml:"hooks"`
	IntelRdt       any      `yaml:"intelRdt"`
	AdditionalGIDs []uint32 `yaml:"additionalGids"`
}

type node struct {
	Path        string `yaml:"path"`
	HostPath    string `yaml:"hostPath"`
	Permissions string `yaml:"permissions"`
	// The rest describes the host's node, which is looked at anyway, and an owner in the container, where everybody may
	// use what the task was given.
	Type     string  `yaml:"type"`
	Major    int64   `yaml:"major"`
	Minor    int64   `yaml:"minor"`
	FileMode *uint32 `yaml:"fileMode"`
	UID      *uint32 `yaml:"uid"`
	GID      *uint32 `yaml:"gid"`
}

type mount struct {
	HostPath      string   `yaml:"hostPath"`
	ContainerPath string   `yaml:"containerPath"`
	Options       []string `yaml:"options"`
	Type          string   `yaml:"type"`
}

type hook struct {
	Name    string   `yaml:"hookName"`
	Path    string   `yaml:"path"`
	Args    []string `yaml:"args"`
	Env     []string `yaml:"env"`
	Timeout *int     `yaml:"timeout"`
}

// Find returns what the named devices need.
func Find(dirs, names []string) (Edits, error) {
	var found Edits
	if len(names) == 0 {
		return found, nil
	}
	var used []string
	for _, full := range names {
		kind, short, _ := strings.Cut(full, "=")
		s, d, err := find(dirs, kind, short)
		if err != nil {
			return found, fmt.Errorf("device %s: %w", full, err)
		}
		list := []edits{d.Edits}
		if !slices.Contains(used, s.path) { // what all of a file's devices need comes once
			used = append(used, s.path)
			list = []edits{s.Edits, d.Edits}
		}
		for _, e := range list {
			if err := found.add(e); err != nil {
				return found, fmt.Errorf("device %s: file %s: %w", full, s.path, err)
			}
		}
	}
	return found, nil
}

// find looks a device up, in the last directory that has it.
func find(dirs []string, kind, short string) (spec, device, error) {
	for _, dir := range slices.Backward(dirs) {
		specs, err := read(dir, kind)
		if err != nil {
			return spec{}, device{}, err
		}
		var in []spec
		var which device
		for _, s := range specs {
			if n := slices.IndexFunc(s.Devices, func(d device) bool { return d.Name == short }); n >= 0 {
				in, which = append(in, s), s.Devices[n]
			}
		}
		if len(in) > 1 {
			return spec{}, device{}, fmt.Errorf("both %s and %s describe it", in[0].path, in[1].path)
		}
		if len(in) == 1 {
			return in[0], which, nil
		}
	}
	return spec{}, device{}, fmt.Errorf("%w: no file in %s describes it", ErrUnknown, strings.Join(dirs, ", "))
}

// read returns the files of a directory that are about a kind. Others may be as broken as they like.
func read(dir, kind string) ([]spec, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var specs []spec
	for _, entry := range entries {
		if !slices.Contains([]string{".json", ".yaml"}, filepath.Ext(entry.Name())) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		text, err := readFile(path)
		if err != nil {
			return nil, err
		}
		var about struct {
			Kind string `yaml:"kind"`
		}
		if yaml.Unmarshal(text, &about) != nil || about.Kind != kind {
			continue
		}
		s := spec{path: path}
		strict := yaml.NewDecoder(bytes.NewReader(text))
		strict.KnownFields(true)
		if err := strict.Decode(&s); err != nil {
			return nil, fmt.Errorf("file %s: %w", path, err)
		}
		specs = append(specs, s)
	}
	return specs, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("file %s is larger than %d bytes", path, maxFile)
	}
	return text, err
}

func (e *Edits) add(more edits) error {
	switch {
	case len(more.Hooks) > 0:
		return fmt.Errorf("hook %s (%s) is not supported: hooks run programs of the host; make the file without hooks", more.Hooks[0].Name, more.Hooks[0].Path)
	case len(more.NetDevices) > 0:
		return errors.New("netDevices are not supported")
	case more.IntelRdt != nil:
		return errors.New("intelRdt is not supported")
	case len(more.AdditionalGIDs) > 0:
		return errors.New("additionalGids are not supported; they are not needed, since everybody in the container may use its devices")
	}
	for _, n := range more.DeviceNodes {
		d := driver.Device{Source: n.HostPath, Target: n.Path, Access: n.Permissions}
		if d.Source == "" {
			d.Source = d.Target
		}
		if d.Access == "" {
			d.Access = "rwm"
		}
		e.Devices = append(e.Devices, d)
	}
	for _, m := range more.Mounts {
		wanted, err := m.mount()
		if err != nil {
			return err
		}
		e.Mounts = append(e.Mounts, wanted)
	}
	e.Env = append(e.Env, more.Env...)
	return nil
}

func (m mount) mount() (driver.Mount, error) {
	wanted := driver.Mount{Source: m.HostPath, Target: m.ContainerPath, IDMapped: true}
	if m.Type != "" && m.Type != "bind" && m.Type != "none" {
		return wanted, fmt.Errorf("mount at %s: type %q is not supported", m.ContainerPath, m.Type)
	}
	for _, option := range m.Options {
		switch option {
		case "ro":
			wanted.ReadOnly = true
		case "noexec":
			wanted.NoExec = true
		case "rbind":
			wanted.Recursive = true
		case "rw", "bind", "nosuid", "nodev", "private", "rprivate": // so it is
		default:
			return wanted, fmt.Errorf("mount at %s: option %q is not supported", m.ContainerPath, option)
		}
	}
	return wanted, nil
}
