//go:build e2e

// Package conformance_test runs Nomad's own tests of drivers against the real plugin binary. It is a module of its own:
// those tests link much of Nomad, which is nobody's business who only builds Drover.
package conformance_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// TestMain moves to the main module, where the programs are built.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// busybox is an image with a shell and what Nomad's commands call; its directory belongs to the user that runs them.
func busybox(t *testing.T, n *plugin.Node) string {
	t.Helper()
	const program = "/bin/busybox"
	body, err := os.ReadFile(program)
	if err != nil {
		t.Fatalf("%v: install the Debian package busybox-static", err)
	}
	entries := []drivertest.Entry{
		drivertest.Dir("bin", 0o755), drivertest.Dir("etc", 0o755), drivertest.Dir("proc", 0o755), drivertest.Dir("sys", 0o755),
		drivertest.Dir("dev", 0o755), drivertest.Dir("tmp", 0o1777), drivertest.File("bin/busybox", 0o755, string(body)),
		drivertest.File("etc/passwd", 0o644, "root:x:0:0:root:/:/bin/sh\nvcap:x:2000:2000::/:/bin/sh\n"),
	}
	for _, name := range strings.Fields("sh cat echo head mktemp sleep stty") {
		entries = append(entries, drivertest.Symlink("bin/"+name, "busybox"))
	}
	image := drivertest.Image(t, driver.ImageConfig{Cmd: []string{"/bin/sleep", "600"}, User: "vcap"}, drivertest.Tar(t, entries...))
	return drivertest.Push(t, n.Registry, "team/busybox:1", image)
}

func TestExecStreaming(t *testing.T) {
	n := plugin.Start(t, plugin.Options{})
	task := n.Task(t, `image = "`+busybox(t, n)+`"`)
	task.Start(t)
	// The harness hands what it gets to our client, and that to the plugin's process.
	harness := testutils.NewDriverHarness(t, n.DriverPlugin)
	t.Cleanup(harness.Kill)

	testutils.TestExecTaskStreamingBasicResponses(t, harness, task.Config.ID)

	// Nomad's test of isolation ends with an assertion on the name of the task's cgroup, which a container with a cgroup
	// namespace of its own does not see. What it wants to know is this.
	t.Run("isolation", func(t *testing.T) {
		run := func(command string) string {
			t.Helper()
			code, out, errs := testutils.ExecTask(t, harness, task.Config.ID, command, false, "")
			if code != 0 || errs != "" {
				t.Fatalf("%s: %d %s", command, code, errs)
			}
			return strings.TrimSpace(out)
		}
		name := run("name=$(mktemp) && echo on the inside >$name && echo $name")
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s is there on the host (%v)", name, err)
		}
		if got := run("cat " + name); got != "on the inside" {
			t.Errorf("the next command reads %q", got)
		}
		for line := range strings.Lines(run("cat /proc/self/cgroup")) {
			if !strings.HasSuffix(strings.TrimSpace(line), ":/") && !strings.Contains(line, ":cpuset:") && strings.Contains(line, task.Config.AllocID) {
				t.Errorf("the container sees the host's cgroups: %s", line)
			}
		}
	})
	t.Run("a script check", func(t *testing.T) { scriptCheck(t, n, task) })
}

// scriptCheck is Nomad's other way to run commands: their output and status, and an end to those that take too long.
func scriptCheck(t *testing.T, n *plugin.Node, task *plugin.Task) {
	t.Helper()
	sh := func(command string, limit time.Duration) (*drivers.ExecTaskResult, error) {
		return n.ExecTask(task.Config.ID, []string{"/bin/sh", "-c", command}, limit)
	}
	got, err := sh("echo out; echo err >&2; exit 3", 20*time.Second)
	if err != nil || got.ExitResult.ExitCode != 3 || string(got.Stdout) != "out\n" || string(got.Stderr) != "err\n" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := sh("sleep 300 & echo $! >/tmp/slow; wait", time.Second); err == nil {
		t.Errorf("a check that takes too long ended well: %+v", got)
	}
	// The task's process 1 reaps nobody, so that a process that was killed stays as a zombie.
	gone, err := sh("read pid </tmp/slow; for n in 0 1 2 3 4 5 6 7 8 9; do read _ _ state _ </proc/$pid/stat || exit 0; [ $state = Z ] && exit 0; sleep 0.2; done; exit 1", 20*time.Second)
	if err != nil || gone.ExitResult.ExitCode != 0 {
		t.Errorf("the child of a check that took too long goes on: %+v, %v", gone, err)
	}
}
