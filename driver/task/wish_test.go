package task

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/driver"
)

func testNode() Config {
	return Config{
		StateDir: "/var/lib/drover/state", ImageDir: "/var/lib/drover/images", Shim: "/opt/drover-shim",
		Stacks: map[string]Stack{"cflinuxfs4": {RootFS: "/srv/cflinuxfs4"}, "debian": {Image: "registry/debian"}},
		IDs:    IDs{HostBase: DefaultHostBase, Size: DefaultIDSize, Count: DefaultIDCount},
		PIDs:   DefaultPIDs, MaxPIDs: DefaultMaxPIDs, PullTimeout: DefaultPullTimeout, OrphanGrace: DefaultOrphanGrace, Seccomp: "default",
		AllowHostPaths: []string{"/srv"}, Pull: PullConfig{Activity: time.Minute},
	}
}

func TestWishValidate(t *testing.T) {
	sum := "sha256:" + strings.Repeat("0", 64)
	for _, row := range []struct {
		promise string
		wish    Wish
		says    string // empty: allowed
	}{
		{"takes an image", Wish{Image: "a/b"}, ""},
		{"takes an image with credentials", Wish{Image: "a/b", Auth: Auth{"u", "p", "a"}}, ""},
		{"takes a stack with a command", Wish{RootFS: "cflinuxfs4", Command: "/bin/true"}, ""},
		{"takes a stack that is an image without a command", Wish{RootFS: "debian"}, ""},
		{"takes a droplet on a stack", Wish{RootFS: "cflinuxfs4", Droplet: "https://h/d", DropletChecksum: sum, Command: "x"}, ""},
		{"takes an allowed path", Wish{RootFS: "/srv/x", Command: "/x"}, ""},
		{"takes run info alone", Wish{RunInfo: true}, ""},
		{"takes run info with limits", Wish{RunInfo: true, PIDsLimit: 5, CPUHardLimit: true}, ""},

		{"wants something to run in", Wish{Command: "x"}, "one of image, rootfs and run_info must be given; this node's stacks for rootfs are cflinuxfs4, debian"},
		{"refuses image and rootfs together", Wish{Image: "a", RootFS: "cflinuxfs4"}, "image and rootfs: only one"},
		{"names the stacks there are", Wish{RootFS: "windows2016"}, `no stack "windows2016"; it has cflinuxfs4, debian`},
		{"wants a command on a bare stack", Wish{RootFS: "cflinuxfs4"}, "command: must be given"},
		{"refuses credentials without an image", Wish{RootFS: "debian", Auth: Auth{"u", "p", ""}}, "auth: allowed with image only"},
		{"refuses half of the credentials", Wish{Image: "a", Auth: Auth{Username: "u"}}, "auth: username and password"},
		{"refuses a server without credentials", Wish{Image: "a", Auth: Auth{ServerAddress: "s"}}, "auth.server_address"},
		{"refuses a path that is not allowed", Wish{RootFS: "/etc", Command: "x"}, "not below any of this node's allow_host_paths: /srv"},
		{"refuses a neighbour of an allowed path", Wish{RootFS: "/srvx", Command: "x"}, "allow_host_paths"},
		{"refuses to climb out of an allowed path", Wish{RootFS: "/srv/../etc", Command: "x"}, "must not have . or .."},
		{"refuses a droplet's path that is not allowed", Wish{Image: "a", Droplet: "/etc/shadow", Command: "x"}, "droplet: "},
		{"refuses a relative droplet", Wish{Image: "a", Droplet: "local/d.tgz", Command: "x"}, "http(s) URL or an absolute path"},
		{"refuses a short checksum", Wish{Image: "a", Droplet: "http://h/d", DropletChecksum: "sha256:ab", Command: "x"}, "droplet_checksum: "},
		{"refuses an unknown checksum", Wish{Image: "a", Droplet: "http://h/d", DropletChecksum: "crc:ab", Command: "x"}, "droplet_checksum: "},
		{"refuses a checksum of nothing", Wish{Image: "a", DropletChecksum: sum}, "droplet_checksum: allowed with droplet only"},
		{"refuses args with a droplet", Wish{Image: "a", Droplet: "http://h/d", Command: "x", Args: []string{"y"}}, "args and entrypoint"},
		{"wants a droplet's command without a lifecycle", Wish{Image: "a", Droplet: "http://h/d"}, "no lifecycle"},
		{"refuses an image beside run info", Wish{RunInfo: true, Image: "a", Command: "x"}, "image: not allowed together with run_info"},
		{"names every field beside run info", Wish{RunInfo: true, Image: "a", Command: "x"}, "command: not allowed together with run_info"},
		{"refuses more processes than allowed", Wish{Image: "a", PIDsLimit: DefaultMaxPIDs + 1}, "pids_limit: 32769 must be between 1 and 32768"},
		{"refuses a relative work_dir", Wish{Image: "a", WorkDir: "x"}, "work_dir"},
		{"refuses a strange hostname", Wish{Image: "a", Hostname: "a b"}, "hostname"},
		{"refuses a strange user", Wish{Image: "a", User: "a b"}, "user"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			err := row.wish.Validate(testNode())
			switch {
			case row.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("error %v, want one with %q", err, row.says)
			}
		})
	}
}

func TestResolvePath_followsLinksAndChecksAgain(t *testing.T) {
	dir := t.TempDir()
	allowed, secret := filepath.Join(dir, "allowed"), filepath.Join(dir, "secret")
	for _, err := range []error{
		os.Mkdir(allowed, 0o755), os.Mkdir(secret, 0o755), os.Symlink(secret, filepath.Join(allowed, "link")),
		os.Mkdir(filepath.Join(allowed, "real"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	node := Config{AllowHostPaths: []string{allowed}}
	if got, err := node.resolvePath("rootfs", filepath.Join(allowed, "real")); err != nil || got != filepath.Join(allowed, "real") {
		t.Errorf("real directory: %s, %v", got, err)
	}
	if got, err := node.resolvePath("rootfs", filepath.Join(allowed, "link")); err == nil {
		t.Errorf("a link out of the allowed directory was followed to %s", got)
	}
	if _, err := node.resolvePath("rootfs", filepath.Join(allowed, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent directory: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, row := range []struct {
		promise string
		change  func(*Config)
		says    string
	}{
		{"takes the defaults", func(*Config) {}, ""},
		{"wants absolute directories", func(c *Config) { c.StateDir = "state" }, "state_dir: "},
		{"wants clean directories", func(c *Config) { c.ImageDir = "/a/../b" }, "image_dir: "},
		{"wants a stack to be one thing", func(c *Config) { c.Stacks["x"] = Stack{Image: "a", RootFS: "/a"} }, `stack "x": exactly one of image and rootfs`},
		{"wants a stack to be something", func(c *Config) { c.Stacks["x"] = Stack{} }, `stack "x": exactly one of image and rootfs`},
		{"wants absolute stacks", func(c *Config) { c.Stacks["x"] = Stack{RootFS: "a"} }, `stack "x": rootfs`},
		{"keeps containers off the host's ids", func(c *Config) { c.IDs.HostBase = 1000 }, "userns.host_base"},
		{"wants whole ranges", func(c *Config) { c.IDs.Size = 1000 }, "userns.size"},
		{"wants ranges at all", func(c *Config) { c.IDs.Count = 0 }, "userns.count"},
		{"wants ranges that exist", func(c *Config) { c.IDs.Count = 1 << 16 }, "at most count = 49150 fits"},
		{"wants certificate and key", func(c *Config) { c.TLS = driver.TLSFiles{Cert: "/c"} }, "tls: cert_file and key_file"},
		{"wants a default below the ceiling", func(c *Config) { c.PIDs = c.MaxPIDs + 1 }, "pids_limit"},
		{"gives no task up at once", func(c *Config) { c.OrphanGrace = 0 }, "orphan_grace"},
		{"wants time to pull", func(c *Config) { c.PullTimeout = 0 }, "image_pull_timeout"},
		{"knows two seccomp modes", func(c *Config) { c.Seccomp = "strict" }, "seccomp"},
		{"wants a lifecycle that can be fetched", func(c *Config) { c.Lifecycle = "ftp://u:hunter2@h/x" }, "lifecycle: "},
		{"wants absolute allowed paths", func(c *Config) { c.AllowHostPaths = []string{"srv"} }, "allow_host_paths"},
		{"names every wrong field", func(c *Config) { c.StateDir, c.Shim = "s", "x" }, "shim: "},
	} {
		t.Run(row.promise, func(t *testing.T) {
			node := testNode()
			row.change(&node)
			err := node.Validate()
			switch {
			case row.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("error %v, want one with %q", err, row.says)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}
