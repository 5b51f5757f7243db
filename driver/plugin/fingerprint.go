package plugin

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	pstructs "github.com/hashicorp/nomad/plugins/shared/structs"

	"drover/driver"
	"drover/driver/probe"
)

// fingerprintEvery is how often the node is looked at.
const fingerprintEvery = 30 * time.Second

// Fingerprint tells at once and then regularly whether and how well this node can run our tasks. What has changed is
// logged once.
func (d *Driver) Fingerprint(ctx context.Context) (<-chan *drivers.Fingerprint, error) {
	ch := make(chan *drivers.Fingerprint)
	go func() {
		defer close(ch)
		ticker := time.NewTicker(fingerprintEvery)
		defer ticker.Stop()
		last := "Healthy"
		for {
			report := probe.Judge(d.facts(ctx))
			if report.Description != last {
				d.log.Warn("the driver's health has changed", "health", report.Health, "cause", report.Description)
			}
			last = report.Description
			select {
			case ch <- fingerprint(report):
			case <-ctx.Done():
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

func (d *Driver) facts(ctx context.Context) probe.Facts {
	facts := probe.Gather(ctx, d.node.Shim)
	facts.Enabled, facts.Version = d.config.Enabled, driver.Version
	facts.Seccomp = facts.Seccomp && d.node.Seccomp != "off"
	for _, name := range slices.Sorted(maps.Keys(d.node.Stacks)) {
		dir := d.node.Stacks[name].RootFS
		if info, err := os.Stat(dir); dir != "" && (err != nil || !info.IsDir()) {
			facts.MissingStacks = append(facts.MissingStacks, fmt.Sprintf("stack %s: its rootfs %s is not a directory", name, dir))
			continue
		}
		facts.Stacks = append(facts.Stacks, name)
	}
	return facts
}

func fingerprint(r probe.Report) *drivers.Fingerprint {
	f := &drivers.Fingerprint{
		Health: drivers.HealthState(r.Health), HealthDescription: r.Description, Attributes: map[string]*pstructs.Attribute{},
	}
	for name, value := range r.Attributes {
		f.Attributes[name] = pstructs.NewStringAttribute(value)
	}
	return f
}
