//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/e2e/plugin"
)

// TestPlugin_health wants a node to be healthy because a container ran on it, to say so once, and to stay so.
func TestPlugin_health(t *testing.T) {
	n := plugin.Start(t, plugin.Options{})
	print := n.AwaitHealth(t, drivers.HealthStateHealthy)
	for _, name := range []string{"userns", "idmap", "seccomp"} {
		if got, _ := print.Attributes["driver.drover."+name].GetString(); got != "1" {
			t.Errorf("attribute %s is %q", name, got)
		}
	}
	memory := filepath.Join(n.Dir, "state", "self-test.json")
	first, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a plugin that is started again is healthy at once", func(t *testing.T) {
		n.Kill(t)
		n.Launch(t)
		if strings.Contains(n.Log(), "health has changed") {
			t.Errorf("the plugin was unhealthy:\n%s", n.Log())
		}
		if again, err := os.ReadFile(memory); err != nil || string(again) != string(first) {
			t.Errorf("the self-test was run again: %s (%v), was %s", again, err, first)
		}
	})
	t.Run("a shim that runs no container makes it unhealthy, and a good one healthy again", func(t *testing.T) {
		good := n.Shim() + ".good"
		if err := os.Rename(n.Shim(), good); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\n[ $1 = version ] && echo broken && exit 0\necho no luck today >&2\nexit 1\n"
		if err := os.WriteFile(n.Shim(), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		print := n.AwaitHealth(t, drivers.HealthStateUnhealthy)
		if !strings.Contains(print.HealthDescription, "the self-test failed") || !strings.Contains(print.HealthDescription, "no luck today") {
			t.Errorf("the cause is %q", print.HealthDescription)
		}
		eventually(t, 10*time.Second, "the change is not logged once", func() (bool, string) { // logs take a way of their own
			return strings.Count(n.Log(), "health has changed") == 1, n.Log()
		})
		if err := os.Rename(good, n.Shim()); err != nil {
			t.Fatal(err)
		}
		n.AwaitHealth(t, drivers.HealthStateHealthy)
	})
}
