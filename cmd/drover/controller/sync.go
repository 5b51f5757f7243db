package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"drover/cmd/drover/controller/diego"
	"drover/cmd/drover/controller/recipe"

	"code.cloudfoundry.org/bbs/models"
)

const (
	syncPause = 30 * time.Second
	domainTTL = 2 * time.Minute
)

// KeepInSync runs Sync every half minute until ctx ends.
func (c *Controller) KeepInSync(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(syncPause)
	defer tick.Stop()
	for {
		if err := c.Sync(ctx); err != nil && ctx.Err() == nil {
			log.Warn("sync failed; domains are not vouched for", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sync makes the BBS's LRPs those of our records: it desires what is missing, updates what is stale and removes what
// is surplus, then vouches for the domains. Any failure leaves the domains to grow stale, so that nobody stops
// instances on the strength of a listing that was not complete.
func (c *Controller) Sync(ctx context.Context) error {
	infos, err := c.bbs.SchedulingInfos(ctx, recipe.DomainApps)
	if err != nil {
		return fmt.Errorf("list LRPs: %w", err)
	}
	apps, err := c.server.Apps(ctx)
	if err != nil {
		return fmt.Errorf("list apps: %w", err)
	}
	present := map[string]*models.DesiredLRPSchedulingInfo{}
	for _, info := range infos {
		present[info.ProcessGuid] = info
	}
	var failures []error
	for _, app := range apps {
		info := present[app.LRPGUID()]
		delete(present, app.LRPGUID())
		failures = append(failures, c.syncApp(ctx, app, info))
	}
	for guid := range present {
		if err := c.bbs.RemoveLRP(ctx, guid); err != nil && !diego.IsNotFound(err) {
			failures = append(failures, fmt.Errorf("remove LRP %s: %w", guid, err))
		}
	}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	for _, domain := range []string{recipe.DomainApps, recipe.DomainTasks} {
		if err := c.bbs.UpsertDomain(ctx, domain, domainTTL); err != nil {
			return fmt.Errorf("vouch for domain %s: %w", domain, err)
		}
	}
	return nil
}

func (c *Controller) syncApp(ctx context.Context, app recipe.App, info *models.DesiredLRPSchedulingInfo) error {
	if info == nil {
		return c.start(ctx, app)
	}
	if info.Annotation == recipe.Annotation(app) {
		return nil
	}
	update, err := recipe.Update(c.platform, app)
	if err != nil {
		return err
	}
	return c.bbs.UpdateLRP(ctx, app.LRPGUID(), update)
}
