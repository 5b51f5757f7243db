// Package controller is the smallest Cloud Controller there is: push, scale, one-off tasks, delete and the sync.
//
// It asks a BBS for exactly what cloud_controller_ng asks for (package recipe makes the requests, package diego sends
// them) and keeps its content and records in a server that cells and the BBS call back (package server). A Controller
// holds no state of its own, so any number of processes may use the same platform.
package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"drover/bridge/mtls"
	"drover/cmd/drover/controller/diego"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"

	"code.cloudfoundry.org/bbs/models"
)

// place is the only space and organization of this Cloud Controller.
func place() recipe.Place {
	return recipe.Place{
		OrgGUID:   "6f7a1c52-0d5e-4a34-9d0b-3d1f0a3f5a01",
		OrgName:   "drover",
		SpaceGUID: "b1f4c9a0-7a86-4f0b-8f47-0f0b7e8f5a02",
		SpaceName: "dev",
	}
}

// Config is everything that a Controller needs to know of a platform.
type Config struct {
	Platform recipe.Platform `json:"platform"`
	// BBS is the URL of the BBS, Server that of our own server.
	BBS    string `json:"bbs"`
	Server string `json:"server"`
	// Buildpacks are the admin buildpacks, in the order in which they are tried.
	Buildpacks []recipe.BuildpackFile `json:"buildpacks"`
}

// Controller runs apps on one platform.
type Controller struct {
	platform   recipe.Platform
	buildpacks []recipe.BuildpackFile
	bbs        *diego.Client
	server     *server.Client
	now        func() time.Time
	// tick is the pause between two looks at something that is waited for.
	tick time.Duration
}

// New returns a Controller that shows the certificate of identity to the BBS and to the server.
func New(config Config, identity *mtls.Identity) *Controller {
	return &Controller{
		platform:   config.Platform,
		buildpacks: config.Buildpacks,
		bbs:        diego.New(config.BBS, identity),
		server:     server.NewClient(config.Server, identity),
		now:        time.Now,
		tick:       200 * time.Millisecond,
	}
}

// App returns an app's record, or server.ErrNotFound.
func (c *Controller) App(ctx context.Context, name string) (recipe.App, error) {
	return c.server.App(ctx, name)
}

// Apps lists all apps in the order of their names.
func (c *Controller) Apps(ctx context.Context) ([]recipe.App, error) {
	return c.server.Apps(ctx)
}

// Instances lists an app's instances as the BBS sees them.
func (c *Controller) Instances(ctx context.Context, app recipe.App) ([]*models.ActualLRP, error) {
	return c.bbs.ActualLRPs(ctx, app.LRPGUID())
}

// Scale changes how many instances an app has; the others are not restarted.
func (c *Controller) Scale(ctx context.Context, name string, instances int32) (recipe.App, error) {
	app, err := c.server.App(ctx, name)
	if err != nil {
		return app, err
	}
	app.Instances, app.UpdatedAt = instances, c.now()
	update, err := recipe.Update(c.platform, app)
	if err != nil {
		return app, err
	}
	if err := c.server.PutApp(ctx, app); err != nil {
		return app, err
	}
	if err := c.bbs.UpdateLRP(ctx, app.LRPGUID(), update); err != nil {
		return app, fmt.Errorf("scale app %s: %w", name, err)
	}
	return app, nil
}

// Delete stops an app and forgets it.
func (c *Controller) Delete(ctx context.Context, name string) error {
	app, err := c.server.App(ctx, name)
	if err != nil {
		return err
	}
	// The record goes first: the sync would bring back an LRP that still has one.
	if err := c.server.DeleteApp(ctx, name); err != nil {
		return err
	}
	return c.stop(ctx, app)
}

// stop removes an app's LRP; one that is not there is fine.
func (c *Controller) stop(ctx context.Context, app recipe.App) error {
	if err := c.bbs.RemoveLRP(ctx, app.LRPGUID()); err != nil && !diego.IsNotFound(err) {
		return fmt.Errorf("stop app %s: %w", app.Name, err)
	}
	return nil
}

// start desires an app's LRP; one that is there already is fine.
func (c *Controller) start(ctx context.Context, app recipe.App) error {
	lrp, err := recipe.LRP(c.platform, app)
	if err != nil {
		return err
	}
	err = c.bbs.DesireLRP(ctx, lrp)
	var answer *models.Error
	if errors.As(err, &answer) && (answer.Type == models.Error_ResourceExists || answer.Type == models.Error_ResourceConflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start app %s: %w", app.Name, err)
	}
	return nil
}

// wait looks again and again until done says yes or fails, or ctx ends.
func (c *Controller) wait(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(c.tick)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// putPackage uploads bits and returns their checksum.
func (c *Controller) putPackage(ctx context.Context, guid string, write func(io.Writer) error) (string, error) {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(write(writer)) }()
	sum, err := c.server.PutPackage(ctx, guid, reader)
	reader.CloseWithError(err)
	return sum, err
}
