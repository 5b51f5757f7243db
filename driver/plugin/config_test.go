package plugin

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"drover/driver"
	"drover/driver/egress"
	"drover/driver/image"
	"drover/driver/login"
	"drover/driver/task"
)

// parse reads an HCL body by a schema, as the agent does.
func parse(t *testing.T, spec *hclspec.Spec, body string, out any) {
	t.Helper()
	decoder, diags := hclspecutils.Convert(spec)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	file, diags := hclparse.NewParser().ParseHCL([]byte(body), "config.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	value, diags := hcldec.Decode(file.Body, decoder, nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var wire drivers.TaskConfig
	if err := wire.EncodeDriverConfig(value); err != nil {
		t.Fatal(err)
	}
	if err := wire.DecodeDriverConfig(out); err != nil {
		t.Fatal(err)
	}
}

func TestConfig_defaults(t *testing.T) {
	var c config
	parse(t, configSpec(), "", &c)
	if !c.Enabled {
		t.Error("an empty plugin block disables the driver")
	}
	got, err := c.node()
	if err != nil {
		t.Fatal(err)
	}
	got.Shim = "" // depends on the machine
	want := task.Config{
		StateDir: task.DefaultStateDir, ImageDir: task.DefaultImageDir, Stacks: map[string]task.Stack{},
		IDs:  task.IDs{HostBase: task.DefaultHostBase, Size: task.DefaultIDSize, Count: task.DefaultIDCount},
		PIDs: task.DefaultPIDs, MaxPIDs: task.DefaultMaxPIDs, PullTimeout: task.DefaultPullTimeout, OrphanGrace: task.DefaultOrphanGrace, Seccomp: "default",
		Pull: task.PullConfig{
			Activity: image.DefaultActivity, Limits: image.Limits{High: task.DefaultGCHigh, Low: task.DefaultGCLow, Delay: task.DefaultGCDelay},
		},
		Storage: task.StorageConfig{CDIDirs: []string{"/etc/cdi", "/var/run/cdi"}},
		Network: task.NetworkConfig{Egress: task.EgressConfig{BlockMetadata: true, MaxRules: task.DefaultMaxEgressRules}},
		Disk:    task.DiskConfig{Default: "10G", Max: "100G", ProjectBase: 1 << 30},
		Process: task.ProcessConfig{LogPatience: task.DefaultLogPatience},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfig_everyOption(t *testing.T) {
	var c config
	parse(t, configSpec(), `
enabled = false
state_dir = "/s"
image_dir = "/i"
shim = "/bin/shim"
default_user = "vcap"
orphan_grace = "1m"
allow_host_paths = ["/srv", "/data:ro", "/csi:shared"]
rootfs_owner = "user"
allow_devices = ["/dev/fuse", "nvidia.com/gpu=*"]
cdi_spec_dirs = ["/cdi"]
insecure_registries = ["registry:5000"]
trusted_certificates = "/certs"
lifecycle = "https://h/lifecycle.tgz"
pids_limit = 10
max_pids_limit = 20
oom_score_adj = 100
logging {
  driver = "none"
  config = [{ rate_limit = "-1" }]
}
log_patience = "5s"
extra_labels = ["job_*"]
image_pull_timeout = "1h"
pull_activity_timeout = "30s"
prefetch = ["a/b:1"]
auth {
  config = "/root/.docker/config.json"
  helper = "ecr-login"
}
gc {
  image_delay = "1m"
  high_watermark = 60
  low_watermark = 50
  max_age = "24h"
}
seccomp = "off"
disk {
  default = "1G"
  max = "unlimited"
  inodes = 5000
  scope = "total"
  project_id_base = 70000
}
stack "cflinuxfs4" {
  rootfs = "/srv/cflinuxfs4"
}
stack "debian" {
  image = "debian:12"
}
userns {
  host_base = 100000
  size = 65536
  count = 7
}
tls {
  ca_file = "/ca"
  cert_file = "/cert"
  key_file = "/key"
}
egress {
  default = "closed"
  block_metadata = false
  max_rules = 5
  allow_host_network = true
  deny {
    protocol = "tcp"
    destinations = ["node"]
    ports = ["4646-4648"]
  }
  allow {
    protocol = "icmp"
    destinations = ["10.0.0.0/8"]
    icmp_type = 0
    icmp_code = -1
    log = true
  }
}`, &c)
	if c.Enabled {
		t.Error("enabled = false is ignored")
	}
	got, err := c.node()
	if err != nil {
		t.Fatal(err)
	}
	want := task.Config{
		StateDir: "/s", ImageDir: "/i", Shim: "/bin/shim", DefaultUser: "vcap", AllowHostPaths: []string{"/srv", "/data", "/csi"},
		InsecureRegistries: []string{"registry:5000"}, TrustedCertificates: "/certs", Lifecycle: "https://h/lifecycle.tgz",
		PIDs: 10, MaxPIDs: 20, PullTimeout: time.Hour, OrphanGrace: time.Minute, Seccomp: "off",
		Pull: task.PullConfig{
			Activity: 30 * time.Second, Prefetch: []string{"a/b:1"}, Login: login.Sources{File: "/root/.docker/config.json", Helper: "ecr-login"},
			Limits: image.Limits{High: 60, Low: 50, Delay: time.Minute, MaxAge: 24 * time.Hour},
		}, TLS: driver.TLSFiles{CA: "/ca", Cert: "/cert", Key: "/key"},
		Stacks: map[string]task.Stack{"cflinuxfs4": {RootFS: "/srv/cflinuxfs4"}, "debian": {Image: "debian:12"}},
		IDs:    task.IDs{HostBase: 100000, Size: 65536, Count: 7},
		Network: task.NetworkConfig{Egress: task.EgressConfig{
			Closed: true, MaxRules: 5, AllowHostNetwork: true,
			Deny:  []egress.Text{{Protocol: "tcp", Destinations: []string{"node"}, Ports: []string{"4646-4648"}}},
			Allow: []egress.Text{{Protocol: "icmp", Destinations: []string{"10.0.0.0/8"}, ICMPType: new(int64(0)), ICMPCode: new(int64(-1)), Log: true}},
		}},
		Disk: task.DiskConfig{Default: "1G", Max: "unlimited", Inodes: 5000, Scope: "total", ProjectBase: 70000},
		Storage: task.StorageConfig{
			RootFSOwner: task.OwnerUser, AllowDevices: []string{"/dev/fuse", "nvidia.com/gpu=*"}, CDIDirs: []string{"/cdi"},
			HostPaths: []task.HostPath{{Dir: "/srv"}, {Dir: "/data", ReadOnly: true}, {Dir: "/csi", Shared: true}},
		},
		Limit: task.LimitConfig{OOMScoreAdj: 100},
		Process: task.ProcessConfig{
			Logging: task.LoggingWish{Type: "none", Config: map[string]string{"rate_limit": "-1"}}, LogPatience: 5 * time.Second, ExtraLabels: []string{"job_*"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSetConfig_refusesByName(t *testing.T) {
	for body, says := range map[string]string{
		`image_pull_timeout = "soon"`:       "image_pull_timeout",
		`state_dir = "here"`:                "state_dir",
		"egress {\n  default = \"shut\"\n}": "egress.default",
		"egress {\n  deny {\n    protocol = \"tcp\"\n    destinations = [\"here\"]\n  }\n}":  "egress.deny[0].destinations",
		"egress {\n  default = \"closed\"\n  allow {\n    protocol = \"tcp\"\n  }\n}":        "egress.allow[0].destinations",
		"egress {\n  allow {\n    protocol = \"all\"\n    destinations = [\"::/0\"]\n  }\n}": "egress.allow: is for",
		"egress {\n  max_rules = -1\n}":             "egress.max_rules",
		"stack \"a\" {}":                            `stack "a": exactly one of image and rootfs`,
		"userns {\n  host_base = 5\n}":              "userns.host_base",
		"pids_limit = 99\nmax_pids_limit = 9":       "pids_limit",
		"tls {\n  cert_file = \"/c\"\n}":            "tls",
		"seccomp = \"a\"\nimage_dir = \"images\"":   "image_dir",
		"disk {\n  default = \"0\"\n}":              "disk.default",
		"disk {\n  default = \"200G\"\n}":           "disk.default: 200G is more than disk.max, 100G",
		"disk {\n  max = \"-1\"\n}":                 "disk.max",
		"disk {\n  inodes = -1\n}":                  "disk.inodes",
		"disk {\n  scope = \"all\"\n}":              "disk.scope",
		"disk {\n  project_id_base = 4294967295\n}": "disk.project_id_base",
		`log_patience = "1ms"`:                      "log_patience",
		`extra_labels = ["["]`:                      "extra_labels",
		`oom_score_adj = 1001`:                      "oom_score_adj",
		"logging {\n type = \"syslog\"\n}":          `logging: type "syslog"`,
	} {
		var c config
		parse(t, configSpec(), body, &c)
		var raw []byte
		if err := base.MsgPackEncode(&raw, &c); err != nil {
			t.Fatal(err)
		}
		err := New(t.Context(), hclog.NewNullLogger()).SetConfig(&base.Config{PluginConfig: raw})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", body, err, says)
		}
	}
}

func TestConfig_collection(t *testing.T) {
	for body, want := range map[string]image.Limits{
		"":                                {High: 85, Low: 75, Delay: 3 * time.Minute},
		"gc {\n}":                         {High: 85, Low: 75, Delay: 3 * time.Minute},
		"gc {\n  image = false\n}":        {},
		"gc {\n  high_watermark = 50\n}":  {High: 50, Low: 49, Delay: 3 * time.Minute},
		"gc {\n  image_delay = \"0s\"\n}": {High: 85, Low: 75},
	} {
		var c config
		parse(t, configSpec(), body, &c)
		if got, err := c.node(); err != nil || got.Pull.Limits != want {
			t.Errorf("%q: got %+v, %v", body, got.Pull.Limits, err)
		}
	}
}

// Nomad sets the configuration twice, without the agent's own, to check it.
func TestSetConfig_worksTwiceAndDoesNothing(t *testing.T) {
	dir := t.TempDir()
	d := New(t.Context(), hclog.NewNullLogger())
	var raw []byte
	if err := base.MsgPackEncode(&raw, &config{nodeConfig: nodeConfig{Enabled: true, StateDir: dir + "/state"}, imageNode: imageNode{ImageDir: dir + "/images"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.SetConfig(&base.Config{PluginConfig: raw, AgentConfig: nil}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.SetConfig(&base.Config{}); err != nil {
		t.Errorf("without a plugin block: %v", err)
	}
}

func TestTaskConfig_everyOption(t *testing.T) {
	var c taskConfig
	parse(t, taskConfigSpec(), `
image = "a/b:1"
load = "image.tar"
platform = "linux/arm64"
force_pull = true
image_pull_timeout = "1h"
auth_soft_fail = true
auth {
  username = "u"
  password = "p"
  server_address = "s"
}
rootfs = "cflinuxfs4"
droplet = "https://h/d"
droplet_checksum = "sha256:00"
command = "c"
args = ["a", "b"]
entrypoint = ["e"]
work_dir = "/w"
hostname = "h"
run_info = true
pids_limit = 5
cpu_hard_limit = true
init = true
tty = true
interactive = true
labels = [{ a = "b" }]
logging {
  type = "nomad"
  config = [{ rate_limit = "1MiB" }]
}
extra_hosts = ["db:10.0.0.1"]
dns_servers = ["10.0.0.2"]
dns_search_domains = ["example.com"]
dns_options = ["ndots:2"]
cpu_cfs_period = 50000
cpuset_cpus = "0-1"
memory_hard_limit = 512
shm_size = "64m"
oom_score_adj = 500
ulimit = [{ nofile = "1024:2048", core = "0" }]
readonly_rootfs = true
egress {
  protocol = "tcp"
  destinations = ["10.0.0.0/8", "192.0.2.1-192.0.2.9"]
  ports = ["80", "8000-9000"]
  log = true
}
egress {
  protocol = "icmp"
  destinations = ["0.0.0.0/0"]
  icmp_type = 8
  icmp_code = 0
}`, &c)
	want := task.Wish{
		Pull:  task.PullWish{Platform: "linux/arm64", Force: true, AuthSoftFail: true, Timeout: time.Hour, Load: "image.tar"},
		Image: "a/b:1", Auth: task.Auth{Username: "u", Password: "p", ServerAddress: "s"}, RootFS: "cflinuxfs4",
		Droplet: "https://h/d", DropletChecksum: "sha256:00", Command: "c", Args: []string{"a", "b"}, Entrypoint: []string{"e"},
		WorkDir: "/w", Hostname: "h", RunInfo: true, PIDsLimit: 5, CPUHardLimit: true, ReadOnlyRootFS: true, User: "vcap",
		Network: task.NetworkWish{Egress: []egress.Text{
			{Protocol: "tcp", Destinations: []string{"10.0.0.0/8", "192.0.2.1-192.0.2.9"}, Ports: []string{"80", "8000-9000"}, Log: true},
			{Protocol: "icmp", Destinations: []string{"0.0.0.0/0"}, ICMPType: new(int64(8)), ICMPCode: new(int64(0))},
		}},
		Process: task.ProcessWish{
			Init: true, TTY: true, Interactive: true, Labels: map[string]string{"a": "b"},
			Logging: task.LoggingWish{Type: "nomad", Config: map[string]string{"rate_limit": "1MiB"}},
		},
		Names: task.NamesWish{
			Hosts: []string{"db:10.0.0.1"}, DNS: task.DNS{Servers: []string{"10.0.0.2"}, Searches: []string{"example.com"}, Options: []string{"ndots:2"}},
		},
		Limit: task.LimitWish{
			Ulimits: map[string]string{"nofile": "1024:2048", "core": "0"}, ShmSize: "64m", OOMScoreAdj: 500, CPUPeriod: 50000, CPUSet: "0-1", MemoryHardMB: 512,
		},
	}
	got, err := c.wish("vcap")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPluginVersion(t *testing.T) {
	for built, want := range map[string]string{
		"dev": "0.0.0+dev", "1.2.3": "1.2.3", "v0.1.0-4-gabcdef-dirty": "v0.1.0-4-gabcdef-dirty", "abc dirty": "0.0.0+abc-dirty", "12ab34": "0.0.0+12ab34",
	} {
		if got := pluginVersion(built); got != want {
			t.Errorf("%s: got %s, want %s", built, got, want)
		}
	}
}
