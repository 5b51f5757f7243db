//go:build e2e

package driver_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/e2e/plugin"
)

func TestFingerprint(t *testing.T) {
	t.Run("1 not as root", func(t *testing.T) {
		n := plugin.Start(t, plugin.Options{UID: 65534, Unchecked: true})
		if got := n.AwaitHealth(t, drivers.HealthStateUndetected); !strings.Contains(got.HealthDescription, "root") || len(got.Attributes) > 0 {
			t.Errorf("undetected because of %q, with attributes %v", got.HealthDescription, got.Attributes)
		}
	})
	t.Run("2 a controller is missing", func(t *testing.T) {
		n := plugin.Start(t, plugin.Options{Unchecked: true, Hide: hiddenController()})
		got := n.AwaitHealth(t, drivers.HealthStateUnhealthy)
		contains(t, got.HealthDescription, "cgroup", "memory")
	})
	t.Run("2 the shim is missing", func(t *testing.T) {
		n := plugin.Start(t, plugin.Options{Unchecked: true, Config: `shim = "/nonexistent/drover-shim"`})
		contains(t, n.AwaitHealth(t, drivers.HealthStateUnhealthy).HealthDescription, "/nonexistent/drover-shim", "shim")
	})
}

func TestHealth(t *testing.T) {
	t.Parallel() // each look at the node is half a minute after the last
	t.Run("3 health is told as it changes", func(t *testing.T) {
		t.Parallel()
		checkFlips(t)
	})
}

// hiddenController is what hides the memory controller when it is covered.
func hiddenController() string {
	const list = "/sys/fs/cgroup/cgroup.controllers"
	if _, err := os.Stat(list); err == nil {
		return list
	}
	return "/sys/fs/cgroup/memory"
}

// checkFlips takes the shim away and gives it back, and wants one line in the log for each change.
func checkFlips(t *testing.T) {
	t.Helper()
	n := plugin.Start(t, plugin.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	prints, err := n.Fingerprint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	await := func(want drivers.HealthState) {
		t.Helper()
		for print := range prints {
			if print.Health == want {
				return
			}
		}
		t.Fatalf("never %s: %s", want, n.Log())
	}
	await(drivers.HealthStateHealthy)
	hidden := n.Shim() + ".away"
	if err := os.Rename(n.Shim(), hidden); err != nil {
		t.Fatal(err)
	}
	await(drivers.HealthStateUnhealthy)
	await(drivers.HealthStateUnhealthy) // the next look sees the same
	if err := os.Rename(hidden, n.Shim()); err != nil {
		t.Fatal(err)
	}
	await(drivers.HealthStateHealthy)
	if got := strings.Count(n.Log(), filepath.Base(n.Shim())+" version"); got > 1 {
		t.Errorf("the cause was logged %d times:\n%s", got, n.Log())
	}
}

func TestConfig(t *testing.T) {
	n := start(t, plugin.Options{Config: "pids_limit = 50\nmax_pids_limit = 100"})
	t.Run("5 a bad plugin option", func(t *testing.T) {
		for body, word := range map[string]string{
			`image_pull_timeout = "soon"`: "image_pull_timeout", `seccomp = "maybe"`: "seccomp", "userns {\n  size = 5\n}": "userns.size",
			`no_such_option = 1`: "no_such_option", `state_directory = "/x"`: "state_directory",
		} {
			if err := n.Configure(t, body); err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v", body, err)
			}
		}
	})
	t.Run("5 a bad task option", func(t *testing.T) {
		for option, word := range map[string]string{
			`work_dir = "here"`: "work_dir", `hostname = "a b"`: "hostname", `droplet_checksum = "sha256:1"`: "droplet_checksum",
			`pids_limit = -1`: "pids_limit",
		} {
			contains(t, n.refused(t, n.probe(option, "id")), word)
		}
		task := n.Task(t, n.probe("", "id"))
		if err := task.SetConfig(n.probe("no_such_option = true", "id")); err == nil || !strings.Contains(err.Error(), "no_such_option") {
			t.Errorf("an unknown option: %v", err)
		}
	})
	t.Run("33 more processes than the operator allows", func(t *testing.T) {
		contains(t, n.refused(t, n.probe("pids_limit = 101", "id")), "pids_limit", "100")
		task := n.Task(t, n.probe("pids_limit = 20", "fork", "60"))
		task.Run(t)
		contains(t, task.Stderr(), "resource temporarily unavailable")
	})
	t.Run("8 no image", func(t *testing.T) {
		contains(t, n.refused(t, `command = "/bin/probe"`), "image", "rootfs")
	})
	t.Run("6 an empty block", func(t *testing.T) {
		plain := start(t, plugin.Options{})
		if got := plain.output(t, plain.probe("", "id")); !strings.HasPrefix(got, "uid=2000") {
			t.Errorf("a task on a node without options: %s", got)
		}
	})
}
