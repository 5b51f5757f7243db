package task

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// story is a container that is assembled, and compared with testdata/NAME.json.
func stories(t *testing.T) map[string]facts {
	t.Helper()
	base := func() facts {
		return facts{
			node: testNode(), id: "t-1", guid: "0b5dc8b2", cpus: 2,
			ids:    driver.IDRange{Host: 1 << 20, Size: 1 << 16},
			layers: []driver.Layer{{Dir: "/var/lib/drover/images/layers/1", Stored: driver.IDRange{Host: 1 << 30, Size: 1 << 16}}},
			req: Request{
				ID: "a1/web/00000000", AllocID: "a1b2c3d4e5", TaskName: "web", AllocDir: "/nomad/alloc/a1b2c3d4e5",
				Env:       map[string]string{"NOMAD_ALLOC_INDEX": "3", "FOO": "jobspec"},
				Resources: Resources{MemoryMB: 64, CPUShares: 100, CpusetCgroup: "/sys/fs/cgroup/nomad.slice/share.slice/a1b2c3d4e5.web.scope"},
				Stdout:    "/logs/.web.stdout.fifo", Stderr: "/logs/.web.stderr.fifo",
			},
			ownIP: "10.0.0.5", resolvConf: "nameserver 10.0.0.2\n",
		}
	}
	image := base()
	image.req.Wish = Wish{Image: "a/b:1", Args: []string{"serve"}, ReadOnlyRootFS: true}
	image.image = driver.ImageConfig{Env: []string{"PATH=/bin", "FOO=image"}, Entrypoint: []string{"/app"}, Cmd: []string{"help"}, User: "1000:1000", WorkingDir: "/srv"}
	image.req.Mounts = []driver.Mount{{Source: "/vol", Target: "data", ReadOnly: true, IDMapped: true}}

	droplet := base()
	droplet.node.Lifecycle, droplet.node.TrustedCertificates = "/srv/lifecycle.tgz", "/etc/ssl/drover"
	droplet.req.Wish = Wish{RootFS: "cflinuxfs4", Droplet: "https://h/d.tgz", Command: "bin/web"}
	droplet.req.NetNS = "/var/run/netns/a1"
	droplet.req.Ports = []Port{{Label: "http", Host: 20001, Container: 8080, HostIP: "192.0.2.1"}}

	lrp := base()
	lrp.node.TrustedCertificates = "/etc/ssl/drover"
	lrp.node.TLS = driver.TLSFiles{CA: "/tls/ca", Cert: "/tls/cert", Key: "/tls/key"}
	lrp.req.Wish = Wish{RunInfo: true}
	lrp.req.NetNS = "/var/run/netns/a1"
	lrp.req.Ports = droplet.req.Ports
	lrp.image = driver.ImageConfig{Env: []string{"PATH=/bin"}}
	lrp.info = &driver.RunInfo{Kind: driver.KindLRP, GUID: "process-guid", Definition: []byte("definition")}
	lrp.def = definition{
		lrp: true, maxPIDs: 99, ports: []uint32{8080}, trustedCertsTarget: "/etc/cf-system-certificates",
		env:    []*models.EnvironmentVariable{{Name: "SECRET", Value: "s3"}},
		egress: []*models.SecurityGroupRule{{Protocol: "udp", Destinations: []string{"0.0.0.0/0"}, Ports: []uint32{53}}},
	}
	lrp.node.Network.Egress.BlockMetadata = true
	lrp.done = []string{"https://h/d ."}

	mounted := image
	mounted.node.Storage.HostPaths = []HostPath{{Dir: "/srv"}, {Dir: "/srv/ro", ReadOnly: true}}
	mounted.image.Volumes = []string{"/var/lib/db", "/data", "cache/"}
	mounted.req.Wish.Storage.Mounts = []MountWish{
		{Type: "bind", Source: "local/conf", Target: "/etc/app", ReadOnly: true},
		{Type: "bind", Source: "../alloc/data/x", Target: "/x", Create: true},
		{Type: "bind", Source: "secrets/key", Target: "/key"},
		{Type: "bind", Source: "/srv/ro/a", Target: "/a", ReadOnly: true, Propagation: "rslave"},
		{Type: "bind", Source: "/srv/b", Target: "/b", Propagation: "rprivate"},
		{Type: "tmpfs", Target: "/cache"},
		{Type: "tmpfs", Target: "/run/bin", SizeBytes: 4096, Mode: 0o700, Exec: true},
	}

	owned := image
	owned.node.Storage.RootFSOwner, owned.imageLayers = OwnerUser, 1
	return map[string]facts{"image": image, "droplet": droplet, "lrp": lrp, "image-of-its-user": owned, "image-with-mounts": mounted}
}

func TestAssemble(t *testing.T) {
	for name, facts := range stories(t) {
		t.Run(name, func(t *testing.T) {
			container, err := assemble(facts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(container, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, got) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(string(want), string(got)))
			}
		})
	}
}

func TestMounts_ofOneCertificateFile(t *testing.T) {
	f := stories(t)["lrp"]
	f.trustedFile = true
	want := driver.Mount{Source: "/etc/ssl/drover", Target: "/etc/cf-system-certificates/trusted-ca-1.crt", ReadOnly: true, NoExec: true}
	if got := f.mounts(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Entrypoint and command follow Docker's rules.
func TestProcess_entrypointAndCommand(t *testing.T) {
	both := driver.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"default"}}
	for _, row := range []struct {
		promise string
		image   driver.ImageConfig
		wish    Wish
		want    string
	}{
		{"runs the image's entrypoint with the image's command", both, Wish{}, "/entry default"},
		{"runs the image's command alone", driver.ImageConfig{Cmd: []string{"/cmd", "a"}}, Wish{}, "/cmd a"},
		{"gives the job's args in place of the image's command", both, Wish{Args: []string{"x"}}, "/entry x"},
		{"gives the job's command and args to the image's entrypoint", both, Wish{Command: "c", Args: []string{"x"}}, "/entry c x"},
		{"drops the image's command with its entrypoint", both, Wish{Entrypoint: []string{"/new"}}, "/new"},
		{"runs the job's entrypoint with the job's command", both, Wish{Entrypoint: []string{"/new"}, Command: "c", Args: []string{"x"}}, "/new c x"},
		{"runs the job's command in a bare image", driver.ImageConfig{}, Wish{Command: "/bin/true"}, "/bin/true"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			got, err := facts{image: row.image, req: Request{Wish: row.wish}}.process()
			if err != nil || strings.Join(got.Args, " ") != row.want {
				t.Errorf("got %q, %v, want %q", got.Args, err, row.want)
			}
		})
	}
	if _, err := (facts{}).process(); err == nil || !strings.Contains(err.Error(), "command: must be given") {
		t.Errorf("nothing to run: error %v", err)
	}
}

func TestUser(t *testing.T) {
	for _, row := range []struct{ promise, task, node, image, want string }{
		{"is the task's", "1:1", "vcap", "nginx", "1:1"},
		{"is the node's default", "", "vcap", "nginx", "vcap"},
		{"is the image's", "", "", "nginx", "nginx"},
		{"is root when nobody says", "", "", "", ""},
	} {
		t.Run(row.promise, func(t *testing.T) {
			f := facts{req: Request{Wish: Wish{User: row.task}}, node: Config{DefaultUser: row.node}, image: driver.ImageConfig{User: row.image}}
			if got := f.user(); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestPIDs(t *testing.T) {
	for _, row := range []struct {
		promise   string
		wish, lrp int64
		want      int64
	}{
		{"has a default", 0, 0, DefaultPIDs}, {"obeys the job", 7, 0, 7}, {"obeys the definition", 0, 8, 8}, {"stays below the ceiling", 0, 1 << 40, DefaultMaxPIDs},
	} {
		t.Run(row.promise, func(t *testing.T) {
			f := facts{req: Request{Wish: Wish{PIDsLimit: row.wish}}, node: testNode(), info: &driver.RunInfo{}, def: definition{maxPIDs: row.lrp}}
			if got := f.pids(); got != row.want {
				t.Errorf("got %d, want %d", got, row.want)
			}
		})
	}
}

func TestContainerID(t *testing.T) {
	const alloc = "0b5dc8b2-7b0c-6f0e-6a6c-6c6f6e6e6e6e"
	a, b := ContainerID(alloc+"/web/aaaaaaaa"), ContainerID(alloc+"/web/bbbbbbbb")
	if a == b {
		t.Errorf("two starts have one container id: %s", a)
	}
	if a != ContainerID(alloc+"/web/aaaaaaaa") {
		t.Error("the same start has two container ids")
	}
	for _, id := range []string{a, ContainerID("x"), ContainerID(alloc + "/ütt€r/../../etc " + strings.Repeat("x", 99) + "/1"), ContainerID("")} {
		if strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" || len(id) > 50 {
			t.Errorf("%q is no container id", id)
		}
	}
}

func TestRequest_names(t *testing.T) {
	for name, fine := range map[string]bool{
		"web": true, "alloc2": true, "a.b": true, "": false, ".": false, "..": false, "alloc": false, "a/b": false, "../x": false, "a\x00": false,
	} {
		if err := (Request{AllocID: "a1b2c3d4", TaskName: name}).validate(); (err == nil) != fine {
			t.Errorf("%q: %v", name, err)
		}
	}
}
