//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

// storageJob is a job as a person writes it who comes from the docker driver.
const storageJob = `
job "storage" {
  group "g" {
    volume "vol" {
      type   = "host"
      source = "vol"
    }
    task "main" {
      driver = "drover"
      config {
        image           = %q
        args            = ["sleep", "600"]
        rootfs_owner    = "user"
        readonly_rootfs = true
        mount {
          type     = "bind"
          source   = "local/conf"
          target   = "/conf"
          readonly = true
        }
        mounts = [
          { type = "tmpfs", target = "/cache", tmpfs_options = { size = 1048576 } }
        ]
        volumes = ["data:/own", %q]
        devices = [
          { host_path = "/dev/kmsg", cgroup_permissions = "r" },
          { host_path = "example.com/test=zero" },
        ]
      }
      template {
        data        = "configured"
        destination = "local/conf/file"
      }
      volume_mount {
        volume      = "vol"
        destination = "/private"
      }
      volume_mount {
        volume           = "vol"
        destination      = "/hears"
        propagation_mode = "host-to-task"
      }
      volume_mount {
        volume           = "vol"
        destination      = "/shares"
        propagation_mode = "bidirectional"
      }
      resources {
        cpu    = 50
        memory = 64
        device "drover/test/full" {}
      }
    }
  }
}
`

func TestDriver_storage(t *testing.T) {
	vol, srv, cdi, program := sharedVolume(t), t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "drover-test-device")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "e2e", "-o", program, "drover/e2e/device")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	spec := "kind: example.com/test\ndevices: [{name: zero, containerEdits: {env: [ZERO=yes], deviceNodes: [{path: /dev/nought, hostPath: /dev/zero}]}}]"
	if err := os.WriteFile(filepath.Join(cdi, "test.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startDriverNodeWith(t, 256, []string{program}, fmt.Sprintf("allow_host_paths = [\"%s:ro\"]\nallow_devices = [\"/dev/kmsg\", \"example.com/*=*\"]\ncdi_spec_dirs = [%q]", srv, cdi),
		fmt.Sprintf("client {\n  host_volume \"vol\" {\n    path = %q\n  }\n}\n", vol), `plugin "drover-test-device" {}`)
	image := drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap", Volumes: []string{"/var"}})
	text := fmt.Sprintf(storageJob, n.push(t, image, "team/probe:1"), srv+":/srv:ro")
	job, err := jobspec2.Parse("storage.hcl", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	alloc := n.start(t, job)
	n.await(t, alloc, "running")
	checkStorage(t, n, alloc)
	checkVolume(t, n, alloc, vol)
}

// sharedVolume is a directory whose mounts the host shares, with two directories in it.
func sharedVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the volume: %v", err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, made := range []string{"host", "task"} {
		if err := os.Mkdir(filepath.Join(dir, made), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checkStorage(t *testing.T, n *driverNode, alloc *nomad.Allocation) {
	t.Helper()
	for _, row := range []struct {
		want string
		args []string
	}{
		{"configured", []string{"cat", "/conf/file"}},
		{"read-only", []string{"write", "/conf/file", "x"}},
		{"read-only", []string{"write", "/srv/x", "x"}},
		{"read-only", []string{"write", "/etc/x", "x"}},
		{"", []string{"write", "/own/x", "x"}},
		{"", []string{"write", "/var/x", "x"}}, // root's in the image, and a volume of it
		{"no space", []string{"fill", "/cache/x", "2"}},
		{"not permitted", []string{"append", "/dev/kmsg", "x"}},
		{"", []string{"append", "/dev/nought", "x"}},
		{"no space", []string{"append", "/dev/given", "x"}}, // as /dev/full has it
		{"yes", []string{"env", "ZERO"}},
		{"one", []string{"env", "GIVEN"}},
	} {
		_, out, errs := n.exec(t, alloc, false, nil, nil, append([]string{"/bin/probe"}, row.args...)...)
		if got := out + errs; !strings.Contains(got, row.want) || row.want == "" && got != "" {
			t.Errorf("%v: %q, want %q", row.args, got, row.want)
		}
	}
}

func checkVolume(t *testing.T, n *driverNode, alloc *nomad.Allocation, vol string) {
	t.Helper()
	at := filepath.Join(vol, "host")
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	if err := os.WriteFile(filepath.Join(at, "late"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"/private": "", "/hears": "late\n", "/shares": "late\n"} {
		if _, out, errs := n.exec(t, alloc, false, nil, nil, "/bin/probe", "ls", dir+"/host"); out != want {
			t.Errorf("%s: the host's later mount shows %q %s, want %q", dir, out, errs, want)
		}
	}
	pid := fmt.Sprint(n.containerPID(t, alloc))
	info, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.Logf("mounts of the container:\n%s", info)
	}
	shares := 0 // under the shared mount there is a private one
	for line := range strings.Lines(string(info)) {
		fields := strings.Fields(line)
		switch {
		case fields[4] == "/shares" && strings.Contains(line, " shared:"):
			shares++
		case fields[4] == "/private" && (strings.Contains(line, "shared:") || strings.Contains(line, "master:")):
			t.Errorf("it is not private: %s", line)
		}
	}
	if shares != 1 {
		t.Errorf("%d mounts at /shares are shared with the host", shares)
	}
}
