//go:build e2e

package driver_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"golang.org/x/sys/unix"

	"drover/e2e/plugin"
)

func TestConfinement(t *testing.T) {
	n := start(t, plugin.Options{Config: "allow_caps = [\"chown\", \"net_bind_service\", \"setuid\"]\nallow_devices = [\"/dev/full\"]\nallow_host_paths = [\"/srv\"]"})
	t.Run("26 capabilities", func(t *testing.T) { checkCapabilities(t, n) })
	t.Run("7 what the operator does not allow", func(t *testing.T) {
		for option, words := range map[string][]string{
			`cap_add = ["sys_admin"]`: {"cap_add", "allow_caps"}, `privileged = true`: {"privileged", "allow_privileged"},
			`pid_mode = "host"`: {"pid_mode", "allowed_modes"}, `ipc_mode = "host"`: {"ipc_mode", "allowed_modes"},
			`uts_mode = "host"`: {"uts_mode", "allowed_modes"}, `userns = "host"`: {"userns", "allowed_modes"},
			`no_new_privileges = false`: {"no_new_privileges"}, `security_opt = ["seccomp=unconfined"]`: {"security_opt", "seccomp"},
			`volumes = ["/etc:/mnt"]`: {"volumes", "allow_host_paths"},
		} {
			contains(t, n.refused(t, n.probe(option, "id")), words...)
		}
	})
	t.Run("27 own namespaces", func(t *testing.T) {
		got := n.output(t, n.probe("", "ls", "/proc"))
		if strings.Contains(got, "\n"+strconv.Itoa(n.PID())+"\n") {
			t.Error("a task sees the node's processes")
		}
	})
	t.Run("28 a link as a mount's source", func(t *testing.T) {
		task := n.Task(t, n.probe(`volumes = ["local/link:/mnt"]`, "ls", "/mnt"))
		if err := os.Symlink("/etc", filepath.Join(task.Config.AllocDir, "main/local/link")); err != nil {
			t.Fatal(err)
		}
		if err := task.TryStart(); err == nil {
			task.Wait(t)
			t.Errorf("a link to the host's /etc was mounted: %s", task.Stdout())
		}
	})
	t.Run("29 devices", func(t *testing.T) {
		config := n.probe("devices {\n host_path = \"/dev/full\"\n container_path = \"/dev/filled\"\n}", "write", "/dev/filled", "x")
		task := n.Task(t, config)
		task.Run(t)
		contains(t, task.Stderr(), "no space left")
		contains(t, n.refused(t, n.probe("devices {\n host_path = \"/dev/kmsg\"\n}", "id")), "/dev/kmsg", "allow_devices")
		// A node that container root makes itself is of no use: makedev(1, 11) is /dev/kmsg.
		task = n.Task(t, n.probe("", "call", strconv.Itoa(unix.SYS_MKNODAT), "-100", "/tmp/kmsg", strconv.Itoa(unix.S_IFCHR|0o666), strconv.Itoa(1<<8|11)), as("root"))
		if exit := task.Run(t); exit.ExitCode == 0 {
			t.Error("a task made a device node")
		}
	})
}

func checkCapabilities(t *testing.T, n node) {
	t.Helper()
	const chown, setuid, bind = 1 << 0, 1 << 7, 1 << 10
	for _, row := range []struct {
		user, options string
		want          uint64
	}{
		{"root", ``, chown | setuid | bind},
		{"vcap", ``, 0},
		{"root", `cap_drop = ["CAP_SETUID"]`, chown | bind},
		{"root", `cap_drop = ["ALL"]`, 0},
		{"root", "cap_drop = [\"all\"]\ncap_add = [\"chown\"]", chown},
		{"vcap", `cap_add = ["NET_BIND_SERVICE"]`, bind},
	} {
		got := n.output(t, n.probe(row.options, "status", "CapEff"), as(row.user))
		_, hex, _ := strings.Cut(strings.TrimSpace(got), ":")
		set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil || set != row.want {
			t.Errorf("%s with %q has %x, want %x (%v)", row.user, row.options, set, row.want, err)
		}
	}
}

func TestConfinement_whatTheOperatorAllows(t *testing.T) {
	n := start(t, plugin.Options{Config: "allowed_modes {\n pid = [\"host\"]\n ipc = [\"host\"]\n uts = [\"host\"]\n userns = [\"host\"]\n}"})
	t.Run("27 the host's namespaces", func(t *testing.T) {
		got := n.output(t, n.probe("pid_mode = \"host\"\nuserns = \"host\"", "ls", "/proc"))
		contains(t, got, "\n"+strconv.Itoa(n.PID())+"\n")
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		contains(t, n.output(t, n.probe("uts_mode = \"host\"\nuserns = \"host\"", "cat", "/proc/sys/kernel/hostname")), host)
	})
}

func TestMounts(t *testing.T) {
	dir := t.TempDir()
	n := start(t, plugin.Options{Config: `allow_host_paths = ["` + dir + `"]`})
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Run("30 writable", func(t *testing.T) {
		contains(t, n.output(t, n.probe(`volumes = ["`+dir+`:/mnt"]`, "then", "--", "cat", "/mnt/file", "--", "write", "/mnt/new", "x")), "of the host")
		if _, err := os.Stat(filepath.Join(dir, "new")); err != nil {
			t.Error(err)
		}
	})
	t.Run("30 read-only", func(t *testing.T) {
		task := n.Task(t, n.probe(`volumes = ["`+dir+`:/mnt:ro"]`, "write", "/mnt/other", "x"))
		task.Run(t)
		contains(t, task.Stderr(), "read-only file system")
	})
	t.Run("30 propagation of a volume", func(t *testing.T) { checkPropagation(t, n) })
	t.Run("31 a read-only root", func(t *testing.T) {
		task := n.Task(t, n.probe("readonly_rootfs = true\ntmpfs = [\"/tmp:size=1m\"]", "then", "--", "write", "/tmp/x", "y", "--", "write", "/var/x", "y"), as("root"))
		task.Run(t)
		if got := task.Stderr(); !strings.Contains(got, "/var/x: read-only file system") {
			t.Errorf("stderr %q", got)
		}
	})
	t.Run("31 a tmpfs of the docker driver's form", func(t *testing.T) {
		contains(t, n.output(t, n.probe("mount {\n type = \"tmpfs\"\n target = \"/cache\"\n tmpfs_options {\n size = 1048576\n }\n}", "cat", "/proc/self/mountinfo")), "/cache ", "size=1024k")
	})
}

// checkPropagation mounts on the host below a volume that a task has, and looks from inside.
func checkPropagation(t *testing.T, n node) {
	t.Helper()
	for mode, seen := range map[string]bool{"private": false, "host-to-task": true, "bidirectional": true} {
		host := filepath.Join(t.TempDir(), "volume")
		if err := os.MkdirAll(filepath.Join(host, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		// A volume is a mount of its own that propagates, as systemd makes all of them.
		for _, call := range []func() error{
			func() error { return unix.Mount(host, host, "", unix.MS_BIND, "") },
			func() error { return unix.Mount("", host, "", unix.MS_SHARED, "") },
		} {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { _ = unix.Unmount(host, unix.MNT_DETACH) })
		task := n.Task(t, n.probe("", "trap", "600"), func(c *drivers.TaskConfig) {
			c.Mounts = []*drivers.MountConfig{{HostPath: host, TaskPath: "/volume", PropagationMode: mode}}
		})
		task.Start(t)
		ready(t, task, "ready")
		if err := unix.Mount("tmpfs", filepath.Join(host, "sub"), "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(filepath.Join(host, "sub"), unix.MNT_DETACH) })
		got, err := n.ExecTask(task.Config.ID, []string{"/bin/probe", "cat", "/proc/self/mountinfo"}, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(got.Stdout), " /volume/sub "); has != seen {
			t.Errorf("%s: a mount of the host is seen inside: %v, want %v", mode, has, seen)
		}
	}
}
