package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"drover/stager"
	"drover/stager/buildpack"
)

// find looks where the buildpack of a key must be.
func (r *run) find(key string) (*buildpack.Buildpack, error) {
	base := r.cfg.BuildpacksDir
	if buildpack.IsURL(key) {
		base = r.cfg.DownloadDir
	}
	return buildpack.Find(base, key) //nolint:wrapcheck // It names the directory.
}

// detect asks the buildpacks in order. One that is missing or cannot be run is skipped: another may still claim the app.
func (r *run) detect(ctx context.Context) error {
	for _, key := range r.cfg.Order {
		b, err := r.find(key)
		if err != nil {
			r.say("Skipping buildpack %s: %v", buildpack.Redact(key), err)
			continue
		}
		name, claimed, err := r.scripts.Claims(ctx, b, r.cfg.BuildDir)
		if ctx.Err() != nil {
			return fmt.Errorf("detecting: %w", ctx.Err())
		}
		if err != nil {
			r.say("Skipping buildpack %s: %v", buildpack.Redact(key), err)
			continue
		}
		if claimed {
			r.used, r.detected = []*buildpack.Buildpack{b}, name
			return nil
		}
	}
	return stager.Fail(stager.ExitDetectFailed, "None of the buildpacks detected a compatible application")
}

// supply runs all buildpacks but the last, and finds that.
func (r *run) supply(ctx context.Context) error {
	for i, key := range r.supplying() {
		b, err := r.find(key)
		if err != nil {
			return stager.Fail(stager.ExitSupplyFailed, "Failed to run all supply scripts: %w", err)
		}
		if !b.Has(buildpack.Supply) {
			return stager.Fail(stager.ExitSupplyFailed,
				"Failed to run all supply scripts: buildpack %s has no bin/supply; it can only be the last one", buildpack.Redact(key))
		}
		if err := r.makeDeps(i); err != nil {
			return err
		}
		cache := filepath.Join(r.cfg.CacheDir, buildpack.DirName(key))
		err = r.scripts.Run(ctx, b, buildpack.Supply, r.cfg.BuildDir, cache, r.deps(), r.index(i))
		if err != nil {
			return stager.Fail(stager.ExitSupplyFailed, "Failed to run all supply scripts: %w", err)
		}
		r.used = append(r.used, b)
	}
	last := r.cfg.Order[len(r.cfg.Order)-1]
	b, err := r.find(last)
	if err != nil {
		return stager.Fail(stager.ExitCompileFailed, "Failed to compile droplet: %w", err)
	}
	r.used = append(r.used, b)
	return nil
}

// finalize runs the final buildpack, in the way of its generation.
func (r *run) finalize(ctx context.Context) error {
	i := len(r.used) - 1
	b := r.used[i]
	cache := filepath.Join(r.cfg.CacheDir, lastCache)
	if !b.Has(buildpack.Finalize) {
		if i > 0 {
			r.say("Warning: the last buildpack has no bin/finalize, so it cannot use what the buildpacks before it supplied")
		}
		if err := r.scripts.Run(ctx, b, buildpack.Compile, r.cfg.BuildDir, cache); err != nil {
			return stager.Fail(stager.ExitCompileFailed, "Failed to compile droplet: %w", err)
		}
		return nil
	}
	if err := r.makeDeps(i); err != nil {
		return err
	}
	if b.Has(buildpack.Supply) {
		if err := r.scripts.Run(ctx, b, buildpack.Supply, r.cfg.BuildDir, cache, r.deps(), r.index(i)); err != nil {
			return stager.Fail(stager.ExitCompileFailed, "Failed to compile droplet: %w", err)
		}
	}
	profile := filepath.Join(r.contents, "profile.d")
	if err := r.scripts.Run(ctx, b, buildpack.Finalize, r.cfg.BuildDir, cache, r.deps(), r.index(i), profile); err != nil {
		return stager.Fail(stager.ExitCompileFailed, "Failed to compile droplet: %w", err)
	}
	return nil
}

func (r *run) deps() string { return filepath.Join(r.contents, "deps") }

func (r *run) makeDeps(i int) error {
	if err := os.MkdirAll(filepath.Join(r.deps(), r.index(i)), 0o755); err != nil { //nolint:gosec // Part of the droplet.
		return fmt.Errorf("making a directory for a buildpack: %w", err)
	}
	return nil
}

// index names the i-th buildpack's directory: all have as many digits as the number of buildpacks, so that sorting by
// name is sorting by order.
func (r *run) index(i int) string {
	digits := len(strconv.Itoa(len(r.cfg.Order)))
	return fmt.Sprintf("%0*d", digits, i)
}
