package plugin

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	pstructs "github.com/hashicorp/nomad/plugins/shared/structs"

	"drover/driver"
	"drover/driver/probe"
	"drover/driver/selftest"
)

const (
	// fingerprintEvery is how often the node is looked at.
	fingerprintEvery = 30 * time.Second
	// firstPatience is how long the first fingerprint waits for the first self-test. Agents register their node once every
	// driver has told of itself, and what changes then takes them seconds to tell: a tenth of a second here saves those.
	firstPatience = 5 * time.Second
)

// Fingerprint tells at once and then regularly whether and how well this node can run our tasks. What has changed is
// logged once.
func (d *Driver) Fingerprint(ctx context.Context) (<-chan *drivers.Fingerprint, error) {
	ch := make(chan *drivers.Fingerprint)
	if d.config.Enabled && os.Geteuid() == 0 && d.tasks != nil { // this is the process that Nomad means to keep
		d.tasks.Maintain()
		d.sweep.Do(func() { go d.tasks.Sweep(d.life) })
	}
	go func() {
		defer close(ch)
		ticker := time.NewTicker(fingerprintEvery)
		defer ticker.Stop()
		last := "Healthy"
		d.awaitTrial(ctx)
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
			case <-d.trial.Changed():
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// awaitTrial begins the first self-test and waits a while for its end.
func (d *Driver) awaitTrial(ctx context.Context) {
	facts := d.facts(ctx)
	if facts.Trial != nil || !testable(facts) {
		return
	}
	patience := time.NewTimer(firstPatience)
	defer patience.Stop()
	select {
	case <-d.trial.Changed():
	case <-patience.C:
	case <-ctx.Done():
	}
}

// testable says that nothing is known that would make a container impossible.
func testable(f probe.Facts) bool { return f.Enabled && f.Root && len(probe.Causes(f)) == 0 }

func (d *Driver) facts(ctx context.Context) probe.Facts {
	d.looking.Lock()
	facts := d.prober.Gather(ctx, d.node.Shim)
	d.looking.Unlock()
	facts.Enabled, facts.Version = d.config.Enabled, driver.Version
	facts.Privileged = d.node.Security.AllowPrivileged
	d.profile(ctx, &facts)
	if testable(facts) {
		facts.Trial = d.tried(facts)
	}
	if facts.Enabled && facts.Root {
		facts.Quota, facts.QuotaDefault = d.quota(), d.node.Disk.Default
		facts.Store = d.store()
	}
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

// profile says whether containers have an AppArmor profile, and loads it when they could.
func (d *Driver) profile(ctx context.Context, facts *probe.Facts) {
	if !facts.Enabled || !facts.Root {
		return
	}
	var err error
	if facts.AppArmor, err = d.tasks.AppArmor(ctx); err != nil {
		facts.AppArmorError = err.Error()
	}
}

// tried is what the last self-test has shown, or nil.
func (d *Driver) tried(f probe.Facts) *probe.Trial {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return &probe.Trial{Error: err.Error()}
	}
	// The ids are those of what is stored on disk, which no task has.
	verdict := d.trial.Verdict(d.life, selftest.Key{
		Boot: strings.TrimSpace(string(boot)), Kernel: f.Kernel, Cgroup: f.Cgroup, Version: f.Version, ShimFile: f.ShimFile + " " + f.ShimVersion,
		Options: selftest.Options{
			StateDir: d.node.StateDir, ImageDir: d.node.ImageDir, Shim: d.node.Shim, IDs: d.node.IDs.Stored(), Seccomp: d.node.Seccomp,
		},
	})
	if !verdict.Settled {
		return nil
	}
	r := verdict.Result
	return &probe.Trial{Error: verdict.Cause, UserNS: r.UserNS, IDMap: r.IDMap, Seccomp: r.Seccomp}
}

// store says what the image store holds, or nil.
func (d *Driver) store() *probe.Store {
	usage, err := d.tasks.Usage()
	if err != nil {
		d.log.Debug("the image store cannot be measured", "error", err)
		return nil
	}
	return &probe.Store{Layers: usage.Layers, MB: uint64(max(usage.Bytes, 0)) >> 20, FreeMB: usage.FreeBytes >> 20}
}

// quota says how use of disk is limited; why not by the kernel is logged once.
func (d *Driver) quota() string {
	way, cause := d.tasks.Quota()
	if cause != nil {
		d.quotaTold.Do(func() { d.log.Info("use of disk is limited by measuring", "cause", cause) })
	}
	return way
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
