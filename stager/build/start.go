package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"drover/stager"
	"drover/stager/buildpack"
)

// maxDocument bounds the small files that say how an app starts.
const maxDocument = 1 << 20

// start is how the app starts.
type start struct {
	types    stager.ProcessTypes
	sidecars []stager.Sidecar
}

// release is what bin/release prints.
type release struct {
	DefaultProcessTypes map[string]string `yaml:"default_process_types"`
}

// launch is a launch.yml, the younger way of saying how an app starts.
type launch struct {
	Processes []struct {
		Type    string `yaml:"type"`
		Command string `yaml:"command"`
		Limits  struct {
			Memory int `yaml:"memory"`
		} `yaml:"limits"`
		Platforms struct {
			CloudFoundry struct {
				SidecarFor []string `yaml:"sidecar_for"`
			} `yaml:"cloudfoundry"`
		} `yaml:"platforms"`
	} `yaml:"processes"`
}

// config is a buildpack's config.yml: what it wants to be known about itself.
type config struct {
	Name    string               `yaml:"name"`
	Version string               `yaml:"version"`
	Config  stager.StagingConfig `yaml:"config"`
}

// startCommands reads what the buildpacks say and lets the app's own Procfile overrule it, type by type.
func (r *run) startCommands(ctx context.Context) (*start, error) {
	procfile, err := readProcfile(r.cfg.BuildDir)
	if err != nil {
		return nil, err
	}
	s := &start{types: stager.ProcessTypes{}}
	last := len(r.used) - 1
	found := false
	for i := range r.used {
		if found, err = r.readLaunch(i, s); err != nil {
			return nil, stager.Fail(stager.ExitReleaseFailed, "Failed to build droplet release: %w", err)
		}
	}
	if !found {
		types, err := r.release(ctx, r.used[last])
		if err != nil {
			return nil, stager.Fail(stager.ExitReleaseFailed, "Failed to build droplet release: %w", err)
		}
		maps.Copy(s.types, types)
	}
	maps.Copy(s.types, procfile)
	if s.types["web"] == "" {
		r.say("No start command specified by buildpack or via Procfile.")
		r.say("App will not start unless a command is provided at runtime.")
	}
	return s, nil
}

// readProcfile reads the file by which an app says how it starts: a YAML map of strings.
func readProcfile(build string) (map[string]string, error) {
	root, err := os.OpenRoot(build)
	if err != nil {
		return nil, fmt.Errorf("opening the app: %w", err)
	}
	defer root.Close() //nolint:errcheck // Only read.
	var types map[string]string
	if _, err := readYAML(root, "Procfile", &types); err != nil {
		return nil, stager.Fail(stager.ExitError, "Failed to read command from Procfile: %w", err)
	}
	return types, nil
}

// release runs bin/release.
func (r *run) release(ctx context.Context, b *buildpack.Buildpack) (map[string]string, error) {
	out, err := r.scripts.Output(ctx, b, buildpack.Release, r.cfg.BuildDir)
	if err != nil {
		return nil, err //nolint:wrapcheck // It names the script.
	}
	var answer release
	if err := yaml.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("bin/release printed no valid YAML: %w", err)
	}
	return answer.DefaultProcessTypes, nil
}

// readLaunch takes over the processes and sidecars of the i-th buildpack's launch.yml, if there is one.
func (r *run) readLaunch(i int, s *start) (bool, error) {
	var doc launch
	found, err := r.readDeps(i, "launch.yml", &doc)
	if err != nil || !found {
		return found, err
	}
	for _, p := range doc.Processes {
		if len(p.Platforms.CloudFoundry.SidecarFor) == 0 {
			s.types[p.Type] = p.Command
			continue
		}
		s.sidecars = append(s.sidecars, stager.Sidecar{
			Name: p.Type, ProcessTypes: p.Platforms.CloudFoundry.SidecarFor, Command: p.Command, Memory: p.Limits.Memory,
		})
	}
	return true, nil
}

// readDeps reads a YAML file from the i-th buildpack's directory.
func (r *run) readDeps(i int, name string, into any) (bool, error) {
	root, err := os.OpenRoot(r.deps())
	if err != nil {
		return false, fmt.Errorf("opening the dependencies: %w", err)
	}
	defer root.Close() //nolint:errcheck // Only read.
	return readYAML(root, filepath.Join(r.index(i), name), into)
}

// readYAML reports whether the file exists.
func readYAML(root *os.Root, name string, into any) (bool, error) {
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking for %s: %w", name, err)
	case !info.Mode().IsRegular() || info.Size() > maxDocument:
		return false, fmt.Errorf("%s is not a file of at most %d bytes", name, maxDocument)
	}
	text, err := root.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", name, err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return false, fmt.Errorf("parsing %s: %w", name, err)
	}
	return true, nil
}

// describe makes the result for Cloud Controller and the droplet's own description for the launcher.
func (r *run) describe(s *start) (*stager.BuildpackResult, *stager.StagingInfo) {
	meta := stager.BuildpackMetadata{DetectedBuildpack: r.detected}
	info := &stager.StagingInfo{StartCommand: s.types["web"]}
	for i, b := range r.used {
		var c config
		found, err := r.readDeps(i, "config.yml", &c)
		if err != nil {
			r.say("Warning: ignoring what buildpack %s says about itself: %v", buildpack.Redact(b.Key), err)
		}
		if c.Name == "" {
			c.Name = r.detected
		}
		meta.Buildpacks = append(meta.Buildpacks, stager.Buildpack{Key: b.Key, Name: c.Name, Version: c.Version})
		meta.BuildpackKey = b.Key
		if i == len(r.used)-1 && found {
			info.Config = &c.Config
		}
	}
	if meta.DetectedBuildpack == "" {
		meta.DetectedBuildpack = meta.Buildpacks[len(meta.Buildpacks)-1].Name
	}
	info.DetectedBuildpack = meta.DetectedBuildpack
	result := &stager.BuildpackResult{
		LifecycleType: stager.LifecycleBuildpack, LifecycleMetadata: meta,
		ProcessTypes: s.types, Processes: ordered(s.types), Sidecars: s.sidecars,
	}
	return result, info
}

// ordered lists processes by name, web first, so that equal stagings have equal results.
func ordered(types stager.ProcessTypes) []stager.Process {
	names := slices.Sorted(maps.Keys(types))
	if i := slices.Index(names, "web"); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, "web")
	}
	var out []stager.Process
	for _, name := range names {
		out = append(out, stager.Process{Type: name, Command: types[name]})
	}
	return out
}
