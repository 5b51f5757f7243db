package plugin

import (
	"drover/driver"
	"drover/driver/task"
)

// platformNodeOptions: Cloud Foundry's part of a node.
func platformNodeOptions() []Option {
	return []Option{
		{Name: "stack", Kind: Named, Doc: "a root file system with a name, for `rootfs` and for Cloud Foundry's apps", Options: []Option{
			{Name: "image", Kind: String, Doc: "an image reference; or"},
			{Name: "rootfs", Kind: String, Doc: "a directory of the host"},
		}},
		{Name: "lifecycle", Kind: String, Doc: "path or URL of `buildpack_app_lifecycle.tgz`, whose launcher starts droplets"},
		{Name: "trusted_certificates", Kind: String, Doc: "certificates mounted at `/etc/cf-system-certificates` for work that asks for them"},
		{Name: "tls", Kind: Block, Doc: "the platform's credentials towards registries and blob stores", Options: []Option{
			{Name: "ca_file", Kind: String, Doc: "certificate authority beside the system's"},
			{Name: "cert_file", Kind: String, Doc: "client certificate"},
			{Name: "key_file", Kind: String, Doc: "its key"},
		}},
	}
}

type platformNode struct {
	Stacks              map[string]stackConfig `codec:"stack"`
	Lifecycle           string                 `codec:"lifecycle"`
	TrustedCertificates string                 `codec:"trusted_certificates"`
	TLS                 tlsConfig              `codec:"tls"`
}

type stackConfig struct {
	Image  string `codec:"image"`
	RootFS string `codec:"rootfs"`
}

type tlsConfig struct {
	CA   string `codec:"ca_file"`
	Cert string `codec:"cert_file"`
	Key  string `codec:"key_file"`
}

func (c platformNode) into(n *task.Config) error {
	n.Stacks = map[string]task.Stack{}
	for name, s := range c.Stacks {
		n.Stacks[name] = task.Stack{Image: s.Image, RootFS: s.RootFS}
	}
	n.Lifecycle, n.TrustedCertificates = c.Lifecycle, c.TrustedCertificates
	n.TLS = driver.TLSFiles{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key}
	return nil
}

// platformOptions: Cloud Foundry's work.
func platformOptions() []Option {
	return []Option{
		{Name: "droplet", Kind: String, Doc: "URL or permitted path of a droplet laid over `rootfs` or `image`"},
		{Name: "droplet_checksum", Kind: String, Doc: "`sha256:…`, `sha1:…` or `md5:…` of the droplet"},
		{Name: "run_info", Kind: Bool, Doc: "set by the bridge only: what to run comes from Nomad Variables"},
	}
}

type platformTask struct {
	Droplet         string `codec:"droplet"`
	DropletChecksum string `codec:"droplet_checksum"`
	RunInfo         bool   `codec:"run_info"`
}

func (c platformTask) into(w *task.Wish) error {
	w.Droplet, w.DropletChecksum, w.RunInfo = c.Droplet, c.DropletChecksum, c.RunInfo
	return nil
}
