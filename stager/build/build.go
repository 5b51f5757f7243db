// Package build is builder: it makes a droplet of an app's files with buildpacks.
//
// Run detects or supplies, finalizes or compiles, reads how the app starts, and packs droplet and cache; whatever
// happens, it writes the result file that Cloud Controller gets. Its errors carry the exit codes of package stager.
//
// With SkipDetect all buildpacks in Order take part: those before the last one supply, the last one finalizes. Without,
// the first that claims the app is the last and only one.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"drover/stager"
	"drover/stager/buildpack"
	"drover/stager/droplet"
	"drover/stager/vcap"
)

// Config is builder's flags.
type Config struct {
	BuildDir         string
	BuildpacksDir    string
	DownloadDir      string
	CacheDir         string
	OutputDroplet    string
	OutputCache      string
	OutputMetadata   string
	Order            []string
	SkipDetect       bool
	SkipVerification bool
}

// DefaultConfig returns the paths that Cloud Controller's recipes rely on. Order has no default.
func DefaultConfig() Config {
	return Config{
		BuildDir:       "/tmp/app",
		BuildpacksDir:  "/tmp/buildpacks",
		DownloadDir:    "/tmp/buildpackdownloads",
		CacheDir:       "/tmp/cache",
		OutputDroplet:  "/tmp/droplet",
		OutputCache:    "/tmp/output-cache",
		OutputMetadata: "/tmp/result.json",
	}
}

// lastCache is the cache directory of the final buildpack, whichever that is.
const lastCache = "final"

// run is one staging on its way.
type run struct {
	cfg     Config
	scripts buildpack.Scripts
	out     io.Writer
	// contents becomes the droplet, with the build directory as app.
	contents string
	// used are the buildpacks that took part, the final one last.
	used []*buildpack.Buildpack
	// detected is what bin/detect said.
	detected string
}

// Run stages once. Progress, and what buildpacks say, goes to stdout and stderr.
func Run(ctx context.Context, cfg Config, env []string, stdout, stderr io.Writer) error {
	env, err := vcap.Prepare(env)
	if err != nil {
		return err
	}
	r := &run{cfg: cfg, out: stdout, scripts: buildpack.Scripts{Env: env, Stdout: stdout, Stderr: stderr}}
	result, err := r.stage(ctx)
	if err != nil {
		failed := stager.BuildpackResult{LifecycleType: stager.LifecycleBuildpack}
		return errors.Join(err, writeJSON(cfg.OutputMetadata, failed))
	}
	return writeJSON(cfg.OutputMetadata, result)
}

func (r *run) stage(ctx context.Context) (*stager.BuildpackResult, error) {
	contents, err := os.MkdirTemp("", "contents")
	if err != nil {
		return nil, fmt.Errorf("making the droplet's directory: %w", err)
	}
	r.contents = contents
	defer os.RemoveAll(contents) //nolint:errcheck // The container ends soon.
	if err := r.makeDirectories(); err != nil {
		return nil, err
	}
	if err := r.fetch(ctx); err != nil {
		return nil, err
	}
	if err := r.cleanCache(); err != nil {
		return nil, err
	}
	if r.cfg.SkipDetect {
		err = r.supply(ctx)
	} else {
		err = r.detect(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := r.finalize(ctx); err != nil {
		return nil, err
	}
	start, err := r.startCommands(ctx)
	if err != nil {
		return nil, err
	}
	result, info := r.describe(start)
	if err := writeJSON(filepath.Join(contents, stager.StagingInfoFile), info); err != nil {
		return nil, err
	}
	return result, r.pack(ctx)
}

// makeDirectories makes all that scripts and the droplet's reader expect to be there.
func (r *run) makeDirectories() error {
	dirs := []string{r.cfg.BuildDir, r.cfg.BuildpacksDir, r.cfg.CacheDir, filepath.Join(r.cfg.CacheDir, lastCache)}
	for _, name := range []string{"deps", "logs", "profile.d", "tmp"} {
		dirs = append(dirs, filepath.Join(r.contents, name))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // The app's user reads them.
			return fmt.Errorf("making a directory: %w", err)
		}
	}
	if err := os.Chmod(r.contents, 0o755); err != nil { //nolint:gosec // It becomes the droplet's root.
		return fmt.Errorf("opening the droplet's directory: %w", err)
	}
	return nil
}

// fetch gets the buildpacks that the platform could not put in place, because a person named them by URL.
func (r *run) fetch(ctx context.Context) error {
	source := buildpack.Source{SkipVerify: r.cfg.SkipVerification, Env: r.scripts.Env, Stdout: r.scripts.Stdout, Stderr: r.scripts.Stderr}
	for _, key := range r.cfg.Order {
		if !buildpack.IsURL(key) {
			continue
		}
		r.say("-----> Downloading buildpack %s", buildpack.Redact(key))
		if err := source.Fetch(ctx, r.cfg.DownloadDir, key); err != nil {
			return err
		}
	}
	return nil
}

// supplying returns the keys of the buildpacks that run before the final one.
func (r *run) supplying() []string {
	if !r.cfg.SkipDetect {
		return nil
	}
	return r.cfg.Order[:len(r.cfg.Order)-1]
}

// cleanCache removes what buildpacks left that no longer take part, so that a cache does not grow for ever.
func (r *run) cleanCache() error {
	keep := map[string]bool{lastCache: true}
	for _, key := range r.supplying() {
		keep[buildpack.DirName(key)] = true
	}
	root, err := os.OpenRoot(r.cfg.CacheDir)
	if err != nil {
		return fmt.Errorf("opening the cache: %w", err)
	}
	defer root.Close() //nolint:errcheck // A directory handle.
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("listing the cache: %w", err)
	}
	for _, entry := range entries {
		if keep[entry.Name()] {
			continue
		}
		if err := root.RemoveAll(entry.Name()); err != nil {
			return fmt.Errorf("cleaning the cache: %w", err)
		}
	}
	for name := range keep {
		if err := root.MkdirAll(name, 0o755); err != nil {
			return fmt.Errorf("making a cache: %w", err)
		}
	}
	return nil
}

// pack writes the two archives. The cache is only an optimisation of the next staging, but one that fails to be written
// means a full disk, and then the droplet cannot be trusted either.
func (r *run) pack(ctx context.Context) error {
	trees := []droplet.Tree{{Name: ".", Dir: r.contents}, {Name: "app", Dir: r.cfg.BuildDir}}
	if err := droplet.Pack(ctx, r.cfg.OutputDroplet, trees...); err != nil {
		return fmt.Errorf("packing the droplet: %w", err)
	}
	if err := droplet.Pack(ctx, r.cfg.OutputCache, droplet.Tree{Name: ".", Dir: r.cfg.CacheDir}); err != nil {
		return fmt.Errorf("packing the cache: %w", err)
	}
	return nil
}

// say writes a line into the staging log. Nobody can be told when that fails.
func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, format+"\n", args...)
}

func writeJSON(file string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(file), err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // The executor reads the result.
		return fmt.Errorf("making the directory of %s: %w", filepath.Base(file), err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil { //nolint:gosec // As above; it holds no secret.
		return fmt.Errorf("writing %s: %w", filepath.Base(file), err)
	}
	return nil
}
