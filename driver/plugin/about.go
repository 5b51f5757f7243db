// Package plugin is the driver that Nomad sees: its name, what it can do, the options of its two config blocks, and the
// calls of Nomad's driver interface, each handed to package task. It is the only package that imports Nomad's plugin
// SDK, so that this could be replaced by a server of the bare protocol.
//
// Serve runs the plugin until the agent ends it. Nomad starts the program three times at each start of an agent, twice
// only to ask for its schema and to check its configuration: so nothing is done before the first call that needs it.
// The process holds nothing that it could not find again: agents kill it as they stop, and tasks do not notice.
package plugin

import (
	"regexp"

	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/fsisolation"

	"drover/driver"
)

// Name is the driver's name in jobspecs.
const Name = "drover"

// handleVersion is the version of what a task handle holds. It is raised only when a plugin would get an older or newer
// handle wrong: task.Record otherwise only gets more fields, and one that is missing is zero.
const handleVersion = 1

func pluginInfo() *base.PluginInfoResponse {
	return &base.PluginInfoResponse{
		Type: base.PluginTypeDriver, PluginApiVersions: []string{drivers.ApiVersion010}, PluginVersion: pluginVersion(driver.Version), Name: Name,
	}
}

var (
	numbered     = regexp.MustCompile(`^v?[0-9]+\.[0-9]+`)
	notInVersion = regexp.MustCompile(`[^0-9A-Za-z.-]+`)
)

// pluginVersion makes a version that Nomad can read: it takes nothing that does not begin with numbers, and a build
// between releases is called by its commit.
func pluginVersion(built string) string {
	if numbered.MatchString(built) {
		return built
	}
	return "0.0.0+" + notInVersion.ReplaceAllString(built, "-")
}

func capabilities() *drivers.Capabilities {
	return &drivers.Capabilities{
		SendSignals: true,
		Exec:        true,
		FSIsolation: fsisolation.Image,
		NetIsolationModes: []drivers.NetIsolationMode{
			drivers.NetIsolationModeHost, drivers.NetIsolationModeGroup, drivers.NetIsolationModeNone,
		},
		MountConfigs: drivers.MountConfigSupportAll,
	}
}
