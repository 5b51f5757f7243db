//go:build e2e

package driver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

func TestRun_directories(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("17 the allocation's directory", func(t *testing.T) {
		task := n.Task(t, n.probe("", "write", "/alloc/data/file", "for all"))
		task.Run(t)
		if got, err := os.ReadFile(filepath.Join(task.Config.AllocDir, "alloc/data/file")); string(got) != "for all\n" {
			t.Errorf("%q, %v; stderr %s", got, err, task.Stderr())
		}
	})
	t.Run("18 the logs are read-only", func(t *testing.T) {
		task := n.Task(t, n.probe("", "write", "/alloc/logs/forged", "x"))
		if exit := task.Run(t); exit.ExitCode == 0 {
			t.Error("a task could write to its logs")
		}
		contains(t, task.Stderr(), "read-only file system")
	})
	t.Run("18 secrets are not executable", func(t *testing.T) {
		task := n.Task(t, n.probe("", "then", "--", "echo", "x"), func(c *drivers.TaskConfig) { c.User = "root" })
		if err := copyProgram(drivertest.BuildProgram(t, drivertest.ProbePackage), filepath.Join(task.Config.AllocDir, "main/secrets/program")); err != nil {
			t.Fatal(err)
		}
		if err := task.SetConfig(`image = "` + n.ref + "\"\nentrypoint = [\"/secrets/program\", \"id\"]"); err != nil {
			t.Fatal(err)
		}
		if err := task.TryStart(); err == nil {
			t.Error("a program in secrets was started")
		}
	})
	t.Run("19 the job's", func(t *testing.T) { contains(t, n.output(t, n.probe(`work_dir = "/etc"`, "id")), "dir=/etc\n") })
	t.Run("19 the image's", func(t *testing.T) {
		ref := n.push(t, "dir:1", driver.ImageConfig{Entrypoint: []string{"/bin/probe", "id"}, WorkingDir: "/home/vcap"})
		contains(t, n.output(t, `image = "`+ref+`"`), "dir=/home/vcap\n")
	})
	t.Run("28 chroot and the host's files", func(t *testing.T) {
		for _, user := range []string{"root", "vcap"} {
			task := n.Task(t, n.probe("", "ls", "/proc/1/root"+task0(n)), as(user))
			if exit := task.Run(t); exit.ExitCode == 0 {
				t.Errorf("%s sees the host's files: %s", user, task.Stdout())
			}
		}
	})
}

// task0 is a path that is on the host and in no container.
func task0(n node) string { return filepath.Join(n.Dir, "plugins") }

func copyProgram(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o755)
}

func TestRun_process(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("20 users", func(t *testing.T) {
		for user, want := range map[string]string{
			"": "uid=2000 gid=2000 groups=[3000]", "root": "uid=0 gid=0", "vcap": "uid=2000 gid=2000 groups=[3000]", "2000": "uid=2000 gid=2000",
			"1234": "uid=1234 gid=0", "1234:3000": "uid=1234 gid=3000", "vcap:extra": "uid=2000 gid=3000",
		} {
			contains(t, n.output(t, n.probe("", "id"), as(user)), want)
		}
	})
	t.Run("20 an unknown user", func(t *testing.T) {
		contains(t, n.refused(t, n.probe("", "id"), as("nobody-here")), "nobody-here")
	})
	t.Run("21 HOME, USER and LOGNAME", func(t *testing.T) {
		contains(t, n.output(t, n.probe("", "env"), as("vcap")), "HOME=/home/vcap\n", "USER=vcap\n", "LOGNAME=vcap\n")
		contains(t, n.output(t, n.probe("", "env"), as("root")), "HOME=/root\n", "USER=root\n", "LOGNAME=root\n")
	})
	t.Run("22 entrypoint, command and args", func(t *testing.T) { checkEntrypoints(t, n) })
	t.Run("23 precedence", func(t *testing.T) {
		got := n.output(t, n.probe("", "env"), func(c *drivers.TaskConfig) { c.Env["BOTH"], c.Env["HOME"] = "job", "/elsewhere" })
		contains(t, "\n"+got, "\nBOTH=job\n", "\nFROM=image\n", "\nHOME=/elsewhere\n", "\nNOMAD_TASK_DIR=/local\n")
	})
	t.Run("24 hostname", func(t *testing.T) {
		contains(t, n.output(t, n.probe(`hostname = "box.example"`, "cat", "/etc/hostname", "/etc/hosts", "/proc/sys/kernel/hostname")), "box.example\n", " box.example\n")
	})
	t.Run("24 extra hosts", func(t *testing.T) {
		contains(t, n.output(t, n.probe(`extra_hosts = ["db.example:192.0.2.7"]`, "cat", "/etc/hosts")), "192.0.2.7 db.example\n")
	})
	t.Run("25 the node's resolvers", func(t *testing.T) {
		host, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			t.Fatal(err)
		}
		if got := n.output(t, n.probe("", "cat", "/etc/resolv.conf")); got != string(host) {
			t.Errorf("resolv.conf is %q, want the host's", got)
		}
	})
	t.Run("25 the job's resolvers", func(t *testing.T) {
		got := n.output(t, n.probe("", "cat", "/etc/resolv.conf"), func(c *drivers.TaskConfig) {
			c.DNS = &drivers.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"example"}, Options: []string{"ndots:2"}}
		})
		if got != "nameserver 192.0.2.53\nsearch example\noptions ndots:2\n" {
			t.Errorf("resolv.conf is %q", got)
		}
	})
}

// checkEntrypoints runs every combination of what an image and a job say. The first word that the probe echoes tells
// which of them counted.
func checkEntrypoints(t *testing.T, n node) {
	t.Helper()
	images := map[string]string{
		"entrypoint and command": n.push(t, "both:1", driver.ImageConfig{Entrypoint: []string{"/bin/probe", "echo", "E"}, Cmd: []string{"C"}}),
		"entrypoint":             n.push(t, "entrypoint:1", driver.ImageConfig{Entrypoint: []string{"/bin/probe", "echo", "E"}}),
		"command":                n.push(t, "command:1", driver.ImageConfig{Cmd: []string{"/bin/probe", "echo", "C"}}),
	}
	for _, row := range []struct{ image, job, want string }{
		{"entrypoint and command", ``, "E C"},
		{"entrypoint and command", `command = "x"`, "E x"},
		{"entrypoint and command", `args = ["a", "b"]`, "E a b"},
		{"entrypoint and command", "command = \"x\"\nargs = [\"a\"]", "E x a"},
		{"entrypoint and command", `entrypoint = ["/bin/probe", "echo", "J"]`, "J"},
		{"entrypoint and command", "entrypoint = [\"/bin/probe\", \"echo\", \"J\"]\nargs = [\"a\"]", "J a"},
		{"entrypoint and command", "entrypoint = [\"/bin/probe\", \"echo\", \"J\"]\ncommand = \"x\"\nargs = [\"a\"]", "J x a"},
		{"entrypoint", ``, "E"},
		{"entrypoint", `args = ["a"]`, "E a"},
		{"command", ``, "C"},
		{"command", "command = \"/bin/probe\"\nargs = [\"echo\", \"a\"]", "a"},
		{"command", `args = ["/bin/probe", "echo", "a"]`, "a"},
		{"command", `entrypoint = ["/bin/probe", "echo", "J"]`, "J"},
	} {
		if got := strings.TrimSpace(n.output(t, `image = "`+images[row.image]+"\"\n"+row.job)); got != row.want {
			t.Errorf("image with %s, job with %q: %q, want %q", row.image, row.job, got, row.want)
		}
	}
}
