package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"

	"drover/bridge/mtls"
)

// Config is the configuration file of the bridge.
type Config struct {
	StaticDir string  `hcl:"static_dir,optional"`
	LogLevel  string  `hcl:"log_level,optional"`
	Listen    *Listen `hcl:"listen,block"`
	TLS       *TLS    `hcl:"tls,block"`
	CC        *TLS    `hcl:"cc,block"`
	Nomad     *Nomad  `hcl:"nomad,block"`
}

// Listen holds the addresses of the three doors; port 0 takes a free port.
type Listen struct {
	BBS      string `hcl:"bbs,optional"`
	Files    string `hcl:"files,optional"`
	Uploader string `hcl:"uploader,optional"`
}

// TLS names a certificate authority, a certificate and its key.
type TLS struct {
	CA   string `hcl:"ca,optional"`
	Cert string `hcl:"cert,optional"`
	Key  string `hcl:"key,optional"`
}

// Nomad says how to reach Nomad and what to ask of it.
type Nomad struct {
	Address     string   `hcl:"address,optional"`
	TokenFile   string   `hcl:"token_file,optional"`
	Region      string   `hcl:"region,optional"`
	Namespace   string   `hcl:"namespace,optional"`
	CA          string   `hcl:"ca,optional"`
	Cert        string   `hcl:"cert,optional"`
	Key         string   `hcl:"key,optional"`
	ServerName  string   `hcl:"tls_server_name,optional"`
	Datacenters []string `hcl:"datacenters,optional"`
	NodePool    string   `hcl:"node_pool,optional"`
	NetworkMode string   `hcl:"network_mode,optional"`
	Services    string   `hcl:"services,optional"`
	KillTimeout string   `hcl:"kill_timeout,optional"`
}

// Default returns the configuration that a file changes.
func Default() Config {
	return Config{
		LogLevel: "info",
		Listen:   &Listen{BBS: "127.0.0.1:8889", Files: "127.0.0.1:8080", Uploader: "127.0.0.1:9091"},
		TLS:      &TLS{},
		CC:       &TLS{},
		Nomad: &Nomad{
			Address: "http://127.0.0.1:4646", Region: "global", Namespace: "default", Datacenters: []string{"*"},
			NodePool: "default", NetworkMode: "bridge", Services: "consul", KillTimeout: "10s",
		},
	}
}

// Example is a file that holds every setting, for the help of the command.
const Example = `# Where to listen. Port 0 takes a free port.
listen {
  bbs      = "0.0.0.0:8889" # BBS API, mutual TLS: Cloud Controller's diego.bbs.url
  files    = "0.0.0.0:8080" # static files in plain HTTP: diego.file_server_url
  uploader = "0.0.0.0:9091" # cc-uploader, mutual TLS: diego.cc_uploader_url
}

# Who we are, and whose certificates callers must show.
tls {
  ca   = "/etc/drover/tls/ca.crt"
  cert = "/etc/drover/tls/bridge.crt"
  key  = "/etc/drover/tls/bridge.key"
}

# Who we are to Cloud Controller. Without this block it is the same as tls.
cc {
  ca   = "/etc/drover/cc/ca.crt"
  cert = "/etc/drover/cc/bridge.crt"
  key  = "/etc/drover/cc/bridge.key"
}

# Lifecycle bundles, served under /v1/static/. Nothing here is secret.
static_dir = "/var/lib/drover/static"

nomad {
  address         = "https://nomad.service.consul:4646"
  token_file      = "/etc/drover/nomad.token" # or the environment's NOMAD_TOKEN
  region          = "global"
  namespace       = "default"
  ca              = "/etc/drover/nomad/ca.crt" # this and what follows: with https
  cert            = "/etc/drover/nomad/bridge.crt"
  key             = "/etc/drover/nomad/bridge.key"
  tls_server_name = "server.global.nomad"

  datacenters  = ["*"]
  node_pool    = "default"
  network_mode = "bridge" # bridge, host or cni/NAME
  services     = "consul" # consul, nomad or none
  kill_timeout = "10s"    # between SIGTERM and SIGKILL
}

log_level = "info" # debug, info, warn or error
`

// Load reads a file over the defaults and checks the result. Its error joins one error for each mistake, settings that
// do not exist included.
func Load(path string) (Config, error) {
	config := Default()
	src, err := os.ReadFile(path)
	if err != nil {
		return config, fmt.Errorf("read the configuration: %w", err)
	}
	err = config.merge(path, src)
	if errors.Is(err, errSyntax) {
		return config, err // There is nothing to check yet.
	}
	return config, errors.Join(err, config.Check())
}

var errSyntax = errors.New("syntax")

// merge puts what a file says over what is there.
func (c *Config) merge(path string, src []byte) error {
	file, diagnostics := hclparse.NewParser().ParseHCL(src, path)
	if diagnostics.HasErrors() {
		return fmt.Errorf("%w: %w", errSyntax, explain(diagnostics))
	}
	return explain(gohcl.DecodeBody(file.Body, nil, c))
}

func explain(diagnostics hcl.Diagnostics) error {
	var mistakes []error
	for _, d := range diagnostics {
		where := ""
		if d.Subject != nil {
			where = fmt.Sprintf("%s:%d: ", d.Subject.Filename, d.Subject.Start.Line)
		}
		mistakes = append(mistakes, fmt.Errorf("%s%s: %s", where, strings.ToLower(d.Summary), d.Detail))
	}
	return errors.Join(mistakes...)
}

// Check returns one error, joined, for each setting that cannot work, with its name and value.
func (c Config) Check() error {
	var m mistakes
	m.address("listen.bbs", c.Listen.BBS)
	m.address("listen.files", c.Listen.Files)
	m.address("listen.uploader", c.Listen.Uploader)
	m.directory("static_dir", c.StaticDir)
	m.oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	m.tls("tls", *c.TLS)
	if *c.CC != (TLS{}) {
		m.tls("cc", *c.CC)
	}
	n := c.Nomad
	m.url("nomad.address", n.Address)
	if n.TokenFile != "" {
		m.file("nomad.token_file", n.TokenFile)
	}
	if n.CA != "" {
		m.file("nomad.ca", n.CA)
	}
	if n.Cert != "" || n.Key != "" {
		m.file("nomad.cert", n.Cert)
		m.file("nomad.key", n.Key)
	}
	if !strings.HasPrefix(n.NetworkMode, "cni/") {
		m.oneOf("nomad.network_mode", n.NetworkMode, "bridge", "host", "cni/NAME")
	}
	m.oneOf("nomad.services", n.Services, "consul", "nomad", "none")
	if d, err := time.ParseDuration(n.KillTimeout); err != nil || d <= 0 {
		m.add("nomad.kill_timeout", n.KillTimeout, "want a duration such as 10s")
	}
	return errors.Join(m...)
}

// Level is the log level that was asked for.
func (c Config) Level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return slog.LevelInfo // Check has told of it.
	}
	return level
}

// toCC is who the bridge is to Cloud Controller.
func (c Config) toCC() mtls.Files {
	if *c.CC == (TLS{}) {
		return mtls.Files(*c.TLS)
	}
	return mtls.Files(*c.CC)
}

// mistakes collects what is wrong, so that an operator hears of all of it at once.
type mistakes []error

func (m *mistakes) add(setting, value, problem string) {
	*m = append(*m, fmt.Errorf("%s = %q: %s", setting, value, problem))
}

func (m *mistakes) address(setting, value string) {
	if _, err := net.ResolveTCPAddr("tcp", value); err != nil || value == "" {
		m.add(setting, value, "want HOST:PORT")
	}
}

func (m *mistakes) directory(setting, value string) {
	if info, err := os.Stat(value); err != nil || !info.IsDir() {
		m.add(setting, value, "want a directory that exists")
	}
}

func (m *mistakes) file(setting, value string) {
	file, err := os.Open(value)
	if err != nil {
		m.add(setting, value, "want a file that can be read")
		return
	}
	_ = file.Close()
}

func (m *mistakes) oneOf(setting, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		m.add(setting, value, "want "+strings.Join(allowed, ", "))
	}
}

func (m *mistakes) tls(block string, files TLS) {
	before := len(*m)
	m.file(block+".ca", files.CA)
	m.file(block+".cert", files.Cert)
	m.file(block+".key", files.Key)
	if len(*m) > before {
		return
	}
	if _, err := mtls.Files(files).Load(); err != nil {
		*m = append(*m, fmt.Errorf("%s: %w", block, err))
	}
}

func (m *mistakes) url(setting, value string) {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		m.add(setting, value, "want http://HOST:PORT or https://HOST:PORT")
	}
}
