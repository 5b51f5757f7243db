package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"

	"drover/bridge/mtls"
	"drover/cmd/drover/controller"
	"drover/cmd/drover/controller/recipe"
	"drover/e2e/agent"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Platform is a platform that runs.
type Platform struct {
	// Info is how to reach it.
	Info Info
	// Cluster are its Nomad and Consul.
	Cluster *agent.Cluster
	// Controller runs apps on it.
	Controller *controller.Controller

	config   Config
	cniDir   string
	log      *slog.Logger
	network  network
	tls      certificates
	rootfs   string
	webImage v1.Image
	static   string
	packs    []recipe.BuildpackFile

	undo   []func(ctx context.Context) error
	failed chan error
}

// certificates are those of each part of the platform.
type certificates struct {
	bridge, controller, cell, command mtls.Files
}

// step brings up one part of a platform, and says how to take it down.
type step struct {
	name string
	up   func(p *Platform, ctx context.Context) (down func(ctx context.Context) error, err error)
}

// steps are in the order in which parts need each other.
func steps() []step {
	return []step{
		{"take the state directory", (*Platform).takeDir},
		{"look at the machine's cgroups", (*Platform).rememberCgroups},
		{"open the log", (*Platform).openLog},
		{"make certificates", (*Platform).makeCertificates},
		{"make root file systems", (*Platform).makeRootFS},
		{"pack lifecycles and buildpacks", (*Platform).packAssets},
		{"bring up the network", (*Platform).bringUpNetwork},
		{"start the registry", (*Platform).startRegistry},
		{"start Consul and Nomad", (*Platform).startAgents},
		{"start the bridge", (*Platform).startBridge},
		{"start the controller", (*Platform).startController},
	}
}

// Start brings up a platform. When a step fails, the steps before it are taken back.
func Start(ctx context.Context, config Config) (*Platform, error) {
	config, err := config.WithDefaults()
	if err != nil {
		return nil, err
	}
	cniDir, err := checkNeeds(config)
	if err != nil {
		return nil, err
	}
	p := &Platform{config: config, cniDir: cniDir, failed: make(chan error, 1)}
	for _, s := range steps() {
		down, err := s.up(p, ctx)
		if down != nil {
			p.undo = append(p.undo, down)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
			return nil, errors.Join(err, p.Stop(context.WithoutCancel(ctx)))
		}
	}
	return p, nil
}

// Wait returns nil when ctx ends, or an error when a part of the platform ends before.
func (p *Platform) Wait(ctx context.Context) error {
	select {
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stop takes everything down, last part first, and goes on after a failure. Calling it again does nothing.
func (p *Platform) Stop(ctx context.Context) error {
	var failures []error
	for _, down := range slices.Backward(p.undo) {
		failures = append(failures, down(ctx))
	}
	p.undo = nil
	return errors.Join(failures...)
}

// serve runs a service in the background and returns how to end it and wait for its end.
func (p *Platform) serve(ctx context.Context, name string, run func(ctx context.Context) error) (down func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var result error
	var running sync.WaitGroup
	running.Go(func() {
		result = run(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case p.failed <- fmt.Errorf("%s ended: %w", name, result):
		default: // another part failed first
		}
	})
	return func(context.Context) error {
		cancel()
		running.Wait()
		if result != nil && !errors.Is(result, context.Canceled) {
			return fmt.Errorf("end %s: %w", name, result)
		}
		return nil
	}
}

// takeDir locks the state directory and clears away what a platform that was killed left in it. What people made
// (bits, droplets, images) stays.
func (p *Platform) takeDir(ctx context.Context) (func(context.Context) error, error) {
	if err := os.MkdirAll(p.config.Dir, 0o711); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(p.config.below("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another drover dev uses %s: %w", p.config.Dir, err), lock.Close())
	}
	p.Info.Dir, p.Info.Logs, p.Info.Tasks = p.config.Dir, p.config.below("logs"), p.config.tasksDir()
	release := func(context.Context) error {
		return errors.Join(os.RemoveAll(p.Info.Tasks), lock.Close())
	}
	if err := p.config.reclaim(ctx); err != nil {
		return release, fmt.Errorf("end an earlier run: %w", err)
	}
	for _, path := range []string{infoFile, "agents", "cell", "cni", "tls"} {
		if err := os.RemoveAll(p.config.below(path)); err != nil {
			return release, fmt.Errorf("clear away an earlier run: %w", err)
		}
	}
	if err := os.RemoveAll(p.Info.Tasks); err != nil {
		return release, fmt.Errorf("clear away an earlier run: %w", err)
	}
	for _, name := range []string{"agents", "cell/plugins", "cell/trusted", "tls", "logs", "static"} {
		if err := os.MkdirAll(p.config.below(name), 0o755); err != nil {
			return release, err
		}
	}
	return release, nil
}

func (p *Platform) rememberCgroups(context.Context) (func(context.Context) error, error) {
	before := Cgroups()
	return func(context.Context) error { return removeCgroups(before) }, nil
}

func (p *Platform) openLog(context.Context) (func(context.Context) error, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(p.config.LogLevel)); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(p.config.below("logs", "drover.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.log = slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: level}))
	// The agents write their logs in their own directory.
	for _, name := range []string{"nomad.log", "consul.log"} {
		err := os.Symlink(p.config.below("agents", name), p.config.below("logs", name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return func(context.Context) error { return file.Close() }, err
		}
	}
	return func(context.Context) error { return file.Close() }, nil
}
