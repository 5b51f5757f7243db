package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"drover/cmd/drover/controller/diego"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"

	"github.com/google/uuid"
)

// ErrStaging is wrapped when an app could not be staged.
var ErrStaging = errors.New("staging failed")

// Push says what to run; zero fields keep what an app has already, or take defaults.
type Push struct {
	Name string
	// Dir holds the app's source; Image is a Docker image. One of the two is given.
	Dir   string
	Image string
	// Buildpack names an admin buildpack to be used without detection.
	Buildpack string
	Instances int32
	MemoryMB  int32
	DiskMB    int32
	Command   string
	Env       map[string]string
	Check     recipe.HealthCheck
}

// Observer is told how a push goes on; nil functions are not called.
type Observer struct {
	// Step is told each step in words.
	Step func(format string, args ...any)
	// Staging follows the output of the Task that stages.
	Staging Watch
}

func (o Observer) step(format string, args ...any) {
	if o.Step != nil {
		o.Step(format, args...)
	}
}

// Push stages an app and starts it in place of its older version. It returns when the LRP is desired; see AwaitRunning.
func (c *Controller) Push(ctx context.Context, push Push, watch Observer) (recipe.App, error) {
	old, err := c.server.App(ctx, push.Name)
	known := err == nil
	if err != nil && !errors.Is(err, server.ErrNotFound) {
		return old, err
	}
	app := c.merge(old, known, push)
	build, err := c.newBuild(ctx, app, push, watch)
	if err != nil {
		return app, err
	}
	if app.Droplet, err = c.stage(ctx, app, build, watch); err != nil {
		return app, err
	}
	app.Version, app.UpdatedAt = uuid.NewString(), c.now()
	if err := c.server.PutApp(ctx, app); err != nil {
		return app, err
	}
	if known {
		watch.step("stopping the older version of %s", app.Name)
		if err := c.stop(ctx, old); err != nil {
			return app, err
		}
	}
	watch.step("starting %s (%d x %d MB)", app.Name, app.Instances, app.MemoryMB)
	return app, c.start(ctx, app)
}

// merge lays a push over what the app was.
func (c *Controller) merge(app recipe.App, known bool, push Push) recipe.App {
	if !known {
		guid := uuid.NewString()
		app = recipe.App{
			GUID: guid, Name: push.Name, Place: place(), ProcessGUID: guid, Version: uuid.NewString(),
			Instances: 1, MemoryMB: 256, DiskMB: 1024,
			Check: recipe.HealthCheck{Type: recipe.CheckPort, Timeout: time.Minute},
		}
	}
	for field, value := range map[*int32]int32{&app.Instances: push.Instances, &app.MemoryMB: push.MemoryMB, &app.DiskMB: push.DiskMB} {
		if value > 0 {
			*field = value
		}
	}
	if push.Command != "" {
		app.Command = push.Command
	}
	if push.Env != nil {
		app.Env = push.Env
	}
	if push.Check.Type != "" {
		app.Check.Type, app.Check.Endpoint = push.Check.Type, push.Check.Endpoint
	}
	if push.Check.Timeout > 0 {
		app.Check.Timeout = push.Check.Timeout
	}
	return app
}

// newBuild uploads an app's bits and chooses its buildpacks.
func (c *Controller) newBuild(ctx context.Context, app recipe.App, push Push, watch Observer) (recipe.Build, error) {
	build := recipe.Build{GUID: uuid.NewString(), Image: push.Image}
	if push.Image != "" {
		_, err := recipe.ImageURL(push.Image)
		return build, err
	}
	build.Buildpacks = c.buildpacks
	if push.Buildpack != "" {
		at := slices.IndexFunc(c.buildpacks, func(b recipe.BuildpackFile) bool { return b.Name == push.Buildpack })
		if at < 0 {
			return build, fmt.Errorf("no buildpack is called %q; there are %s", push.Buildpack, c.buildpackNames())
		}
		build.Buildpacks, build.SkipDetect = c.buildpacks[at:at+1], true
	}
	watch.step("uploading the app from %s", push.Dir)
	build.PackageGUID = uuid.NewString()
	var err error
	build.PackageSHA256, err = c.putPackage(ctx, build.PackageGUID, func(w io.Writer) error { return zipDir(w, push.Dir) })
	if err != nil {
		return build, fmt.Errorf("upload the app: %w", err)
	}
	build.CacheSHA256, err = c.server.CacheSHA256(ctx, c.platform.Stack, app.GUID)
	return build, err
}

// explain makes an error of the reason that a staging failed for.
func (c *Controller) explain(reason string) error {
	name := stagingError(reason)
	if help := cure(name, c.buildpackNames()); help != "" {
		return fmt.Errorf("%w: %s: %s: %s", ErrStaging, name, reason, help)
	}
	return fmt.Errorf("%w: %s: %s", ErrStaging, name, reason)
}

func (c *Controller) buildpackNames() []string {
	names := make([]string, 0, len(c.buildpacks))
	for _, pack := range c.buildpacks {
		names = append(names, pack.Name)
	}
	return names
}

// stage runs a build and returns its droplet.
func (c *Controller) stage(ctx context.Context, app recipe.App, build recipe.Build, watch Observer) (recipe.Droplet, error) {
	task, err := recipe.Staging(c.platform, app, build)
	if err != nil {
		return recipe.Droplet{}, err
	}
	record := server.Build{
		GUID: build.GUID, App: app.Name, Docker: build.Image != "", State: server.StateRunning, UpdatedAt: c.now(), Hold: watch.Staging != nil,
	}
	if err := c.server.PutBuild(ctx, record); err != nil {
		return recipe.Droplet{}, err
	}
	watch.step("staging %s", app.Name)
	if err := c.bbs.DesireTask(ctx, build.GUID, recipe.DomainStaging, task); err != nil {
		return recipe.Droplet{}, fmt.Errorf("%w: %w", ErrStaging, err)
	}
	err = c.watch(ctx, build.GUID, watch.Staging, func() (bool, error) {
		var err error
		record, err = c.server.Build(ctx, build.GUID)
		return record.State != server.StateRunning, err
	})
	if err != nil {
		err = fmt.Errorf("staging of %s is given up: %w", app.Name, err)
		return recipe.Droplet{}, errors.Join(err, c.cancelTask(ctx, build.GUID))
	}
	if record.State == server.StateFailed {
		return recipe.Droplet{}, c.explain(record.Completion.FailureReason)
	}
	return droplet(c.platform, record)
}

// Watch follows the output of a Task from now on; the function that it returns reads what is left and ends that.
type Watch func(ctx context.Context, guid string) (end func())

// watch waits for a Task's end while somebody follows its output, whom it lets finish before the Task is forgotten.
func (c *Controller) watch(ctx context.Context, guid string, follow Watch, done func() (bool, error)) error {
	if follow == nil {
		return c.wait(ctx, done)
	}
	end := follow(ctx, guid)
	err := c.wait(ctx, done)
	end()
	return errors.Join(err, c.server.Release(context.WithoutCancel(ctx), guid))
}

// cancelTask ends a Task that nobody waits for any more.
func (c *Controller) cancelTask(ctx context.Context, guid string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := c.bbs.CancelTask(ctx, guid); err != nil && !diego.IsNotFound(err) {
		return fmt.Errorf("cancel task %s: %w", guid, err)
	}
	return nil
}

// stagingResult is what the lifecycle's builder wrote to its result file.
type stagingResult struct {
	LifecycleType     string `json:"lifecycle_type"`
	LifecycleMetadata struct {
		DockerImage string `json:"docker_image"`
	} `json:"lifecycle_metadata"`
	ProcessTypes      map[string]string `json:"process_types"`
	ExecutionMetadata string            `json:"execution_metadata"`
}

// droplet reads a successful build's result.
func droplet(p recipe.Platform, build server.Build) (recipe.Droplet, error) {
	var result stagingResult
	if err := json.Unmarshal([]byte(build.Completion.Result), &result); err != nil {
		return recipe.Droplet{}, fmt.Errorf("%w: the result of staging is not readable: %w", ErrStaging, err)
	}
	d := recipe.Droplet{
		Lifecycle:         result.LifecycleType,
		SHA256:            build.DropletSHA256,
		Image:             result.LifecycleMetadata.DockerImage,
		ProcessTypes:      result.ProcessTypes,
		ExecutionMetadata: result.ExecutionMetadata,
	}
	want := recipe.Buildpack
	if build.Docker {
		want = recipe.Docker
	} else {
		d.Stack = p.Stack
	}
	if d.Lifecycle != want {
		return d, fmt.Errorf("%w: the result is of lifecycle %q, not %q", ErrStaging, d.Lifecycle, want)
	}
	return d, nil
}
