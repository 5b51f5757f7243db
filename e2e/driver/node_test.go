//go:build e2e

package driver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// node is a plugin with an image whose only program is the probe.
type node struct {
	*plugin.Node
	ref string
}

func start(t *testing.T, o plugin.Options) node {
	t.Helper()
	n := node{Node: plugin.Start(t, o)}
	n.ref = n.push(t, "probe:1", driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap", Env: []string{"FROM=image", "BOTH=image"}})
	return n
}

func (n node) push(t *testing.T, name string, config driver.ImageConfig) string {
	t.Helper()
	return drivertest.Push(t, n.Registry, name, drivertest.RootFSImage(t, config))
}

// probe is a config block that runs a subcommand of the probe, with more options behind it.
func (n node) probe(options string, args ...string) string {
	return fmt.Sprintf("image = %q\nargs = %s\n%s", n.ref, list(args), options)
}

func list(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		quoted = append(quoted, fmt.Sprintf("%q", w))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// output runs a task that is to succeed, and returns what it printed.
func (n node) output(t *testing.T, config string, change ...func(*drivers.TaskConfig)) string {
	t.Helper()
	task := n.Task(t, config, change...)
	if exit := task.Run(t); exit.ExitCode != 0 || exit.Err != nil {
		t.Fatalf("%s ended with %+v: %s%s", config, exit, task.Stdout(), task.Stderr())
	}
	return task.Stdout()
}

// refused starts a task that is not to start, and returns why not.
func (n node) refused(t *testing.T, config string, change ...func(*drivers.TaskConfig)) string {
	t.Helper()
	err := n.Task(t, config, change...).TryStart()
	if err == nil {
		t.Fatalf("%s started", config)
	}
	return err.Error()
}

// contains wants a text to hold each of the words.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in: %s", w, text)
		}
	}
}

func as(user string) func(*drivers.TaskConfig) {
	return func(c *drivers.TaskConfig) { c.User = user }
}
