package serve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover/bridge/mtls"
)

// issue writes certificates for 127.0.0.1 and returns their names.
func issue(t *testing.T) mtls.Files {
	t.Helper()
	authority, err := mtls.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(t.TempDir(), "bridge", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bridge.conf")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExample_holdsEverySetting(t *testing.T) {
	got := Default()
	if err := got.merge("example.hcl", []byte(Example)); err != nil {
		t.Fatal(err)
	}
	want := Config{
		StaticDir: "/var/lib/drover/static",
		LogLevel:  "info",
		Listen:    &Listen{BBS: "0.0.0.0:8889", Files: "0.0.0.0:8080", Uploader: "0.0.0.0:9091"},
		TLS:       &TLS{CA: "/etc/drover/tls/ca.crt", Cert: "/etc/drover/tls/bridge.crt", Key: "/etc/drover/tls/bridge.key"},
		CC:        &TLS{CA: "/etc/drover/cc/ca.crt", Cert: "/etc/drover/cc/bridge.crt", Key: "/etc/drover/cc/bridge.key"},
		Nomad: &Nomad{
			Address: "https://nomad.service.consul:4646", TokenFile: "/etc/drover/nomad.token", Region: "global", Namespace: "default",
			CA: "/etc/drover/nomad/ca.crt", Cert: "/etc/drover/nomad/bridge.crt", Key: "/etc/drover/nomad/bridge.key", ServerName: "server.global.nomad",
			Datacenters: []string{"*"}, NodePool: "default", NetworkMode: "bridge", Services: "consul", KillTimeout: "10s",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the example (-want +got):\n%s", diff)
	}
}

func TestLoad_keepsDefaults(t *testing.T) {
	got := Default()
	if err := got.merge("small.hcl", []byte(`
listen { bbs = "127.0.0.1:0" }
nomad { region = "here" }
`)); err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen.BBS = "127.0.0.1:0"
	want.Nomad.Region = "here"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoad_namesEveryMistake(t *testing.T) {
	_, err := Load(write(t, `
statik_dir = "/x"
listen {
  bss = "127.0.0.1:0"
}
consul {}
`))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`bridge.conf:2: `, `"statik_dir"`, `bridge.conf:4: `, `"bss"`, `"consul"`, `tls.key = ""`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in:\n%v", want, err)
		}
	}
}

func TestLoad_doesNotGuessWhatItCannotRead(t *testing.T) {
	for promise, path := range map[string]string{
		"a file that is missing": filepath.Join(t.TempDir(), "missing.hcl"),
		"a file that is no HCL":  write(t, "listen {"),
	} {
		_, err := Load(path)
		if err == nil || strings.Contains(err.Error(), "tls.key") {
			t.Errorf("%s: got %v, want that and nothing else", promise, err)
		}
	}
}

func TestCheck(t *testing.T) {
	files := issue(t)
	good := func() Config {
		c := Default()
		*c.TLS = TLS(files)
		c.StaticDir = t.TempDir()
		return c
	}
	if err := good().Check(); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for _, row := range []struct {
		promise string
		spoil   func(*Config)
		want    string
	}{
		{"wants a port", func(c *Config) { c.Listen.BBS = "localhost" }, `listen.bbs = "localhost": want HOST:PORT`},
		{"wants static files", func(c *Config) { c.StaticDir = "" }, `static_dir = "": want a directory`},
		{"wants a directory", func(c *Config) { c.StaticDir = files.CA }, `static_dir = `},
		{"wants certificates", func(c *Config) { c.TLS = &TLS{} }, `tls.ca = "": want a file`},
		{"wants a key that fits", func(c *Config) { c.TLS.Key = files.CA }, `tls: load certificate`},
		{"wants all of cc or nothing", func(c *Config) { c.CC = &TLS{CA: files.CA} }, `cc.cert = "": want a file`},
		{"wants a URL of Nomad", func(c *Config) { c.Nomad.Address = "127.0.0.1:4646" }, `nomad.address = "127.0.0.1:4646": want http`},
		{"wants a token that can be read", func(c *Config) { c.Nomad.TokenFile = "/missing" }, `nomad.token_file = "/missing"`},
		{"wants a pair for Nomad", func(c *Config) { c.Nomad.Cert = files.Cert }, `nomad.key = ""`},
		{"wants a known network mode", func(c *Config) { c.Nomad.NetworkMode = "overlay" }, `nomad.network_mode = "overlay": want bridge, host, cni/NAME`},
		{"wants a known registry of services", func(c *Config) { c.Nomad.Services = "zookeeper" }, `nomad.services = "zookeeper"`},
		{"wants a time to kill", func(c *Config) { c.Nomad.KillTimeout = "10" }, `nomad.kill_timeout = "10"`},
		{"wants a level", func(c *Config) { c.LogLevel = "loud" }, `log_level = "loud": want debug, info, warn, error`},
	} {
		t.Run(row.promise, func(t *testing.T) {
			c := good()
			row.spoil(&c)
			err := c.Check()
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
	c := Default()
	c.Listen.Files, c.LogLevel = "", ""
	if got := strings.Count(c.Check().Error(), "\n") + 1; got != 6 {
		t.Errorf("%d mistakes at once, want 6:\n%v", got, c.Check())
	}
}
