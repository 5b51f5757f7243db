//go:build e2e

// Command device is a device plugin of Nomad for tests: it gives out one device, the host's /dev/full as /dev/given, for
// reading and writing, with a variable.
package main

import (
	"context"
	"errors"
	"time"

	log "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/device"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
)

func main() { plugins.Serve(func(log.Logger) any { return given{} }) }

type given struct{}

var _ device.DevicePlugin = given{}

func (given) PluginInfo() (*base.PluginInfoResponse, error) {
	return &base.PluginInfoResponse{
		Type: base.PluginTypeDevice, PluginApiVersions: []string{device.ApiVersion010}, PluginVersion: "v0.1.0", Name: "drover-test-device",
	}, nil
}

func (given) ConfigSchema() (*hclspec.Spec, error) { return hclspec.NewObject(nil), nil }

func (given) SetConfig(*base.Config) error { return nil }

func (given) Fingerprint(ctx context.Context) (<-chan *device.FingerprintResponse, error) {
	out := make(chan *device.FingerprintResponse, 1)
	out <- &device.FingerprintResponse{Devices: []*device.DeviceGroup{{
		Vendor: "drover", Type: "test", Name: "full", Devices: []*device.Device{{ID: "one", Healthy: true}},
	}}}
	context.AfterFunc(ctx, func() { close(out) })
	return out, nil
}

func (given) Reserve(ids []string) (*device.ContainerReservation, error) {
	if len(ids) != 1 {
		return nil, errors.New("there is one device")
	}
	return &device.ContainerReservation{
		Envs:    map[string]string{"GIVEN": ids[0]},
		Devices: []*device.DeviceSpec{{HostPath: "/dev/full", TaskPath: "/dev/given", CgroupPerms: "rw"}},
		// No mount: Nomad 1.11 forgets a task's volumes when a device has one.
	}, nil
}

func (given) Stats(ctx context.Context, _ time.Duration) (<-chan *device.StatsResponse, error) {
	out := make(chan *device.StatsResponse)
	context.AfterFunc(ctx, func() { close(out) })
	return out, nil
}
