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
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"drover/driver"
)

// Name is the driver's name in jobspecs.
const Name = "drover"

// handleVersion is the version of what a task handle holds.
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

// configSpec is the schema of the agent's plugin block.
func configSpec() *hclspec.Spec {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"enabled":              hclspec.NewDefault(hclspec.NewAttr("enabled", "bool", false), hclspec.NewLiteral("true")),
		"state_dir":            hclspec.NewAttr("state_dir", "string", false),
		"image_dir":            hclspec.NewAttr("image_dir", "string", false),
		"shim":                 hclspec.NewAttr("shim", "string", false),
		"default_user":         hclspec.NewAttr("default_user", "string", false),
		"allow_host_paths":     hclspec.NewAttr("allow_host_paths", "list(string)", false),
		"insecure_registries":  hclspec.NewAttr("insecure_registries", "list(string)", false),
		"trusted_certificates": hclspec.NewAttr("trusted_certificates", "string", false),
		"lifecycle":            hclspec.NewAttr("lifecycle", "string", false),
		"pids_limit":           hclspec.NewAttr("pids_limit", "number", false),
		"max_pids_limit":       hclspec.NewAttr("max_pids_limit", "number", false),
		"image_pull_timeout":   hclspec.NewAttr("image_pull_timeout", "string", false),
		"seccomp":              hclspec.NewAttr("seccomp", "string", false),
		"stack": hclspec.NewBlockMap("stack", []string{"name"}, hclspec.NewObject(map[string]*hclspec.Spec{
			"image":  hclspec.NewAttr("image", "string", false),
			"rootfs": hclspec.NewAttr("rootfs", "string", false),
		})),
		"userns": hclspec.NewBlock("userns", false, hclspec.NewObject(map[string]*hclspec.Spec{
			"host_base": hclspec.NewAttr("host_base", "number", false),
			"size":      hclspec.NewAttr("size", "number", false),
			"count":     hclspec.NewAttr("count", "number", false),
		})),
		"tls": hclspec.NewBlock("tls", false, hclspec.NewObject(map[string]*hclspec.Spec{
			"ca_file":   hclspec.NewAttr("ca_file", "string", false),
			"cert_file": hclspec.NewAttr("cert_file", "string", false),
			"key_file":  hclspec.NewAttr("key_file", "string", false),
		})),
	})
}

// taskConfigSpec is the schema of a task's config block.
func taskConfigSpec() *hclspec.Spec {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"image": hclspec.NewAttr("image", "string", false),
		"auth": hclspec.NewBlock("auth", false, hclspec.NewObject(map[string]*hclspec.Spec{
			"username":       hclspec.NewAttr("username", "string", false),
			"password":       hclspec.NewAttr("password", "string", false),
			"server_address": hclspec.NewAttr("server_address", "string", false),
		})),
		"rootfs":           hclspec.NewAttr("rootfs", "string", false),
		"droplet":          hclspec.NewAttr("droplet", "string", false),
		"droplet_checksum": hclspec.NewAttr("droplet_checksum", "string", false),
		"command":          hclspec.NewAttr("command", "string", false),
		"args":             hclspec.NewAttr("args", "list(string)", false),
		"entrypoint":       hclspec.NewAttr("entrypoint", "list(string)", false),
		"work_dir":         hclspec.NewAttr("work_dir", "string", false),
		"hostname":         hclspec.NewAttr("hostname", "string", false),
		"run_info":         hclspec.NewAttr("run_info", "bool", false),
		"pids_limit":       hclspec.NewAttr("pids_limit", "number", false),
		"cpu_hard_limit":   hclspec.NewAttr("cpu_hard_limit", "bool", false),
		"readonly_rootfs":  hclspec.NewAttr("readonly_rootfs", "bool", false),
	})
}
