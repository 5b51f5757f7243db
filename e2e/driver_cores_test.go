//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
)

// TestDriver_cores: a core that Nomad keeps for a task is all that the task may use, and nobody else may.
func TestDriver_cores(t *testing.T) {
	n := startDriverNode(t, 256, "")
	ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap"}), "team/cores:1")
	config := func() map[string]any {
		return map[string]any{"image": ref, "args": []string{"then", "--", "status", "Cpus_allowed_list", "--", "sleep", "600"}}
	}
	cpus := func(alloc *nomad.Allocation) string {
		t.Helper()
		n.awaitLog(t, alloc, "stdout", "Cpus_allowed_list:")
		own := strings.TrimSpace(strings.TrimPrefix(n.logs(t, alloc, "stdout"), "Cpus_allowed_list:"))
		if code, out, _ := n.exec(t, alloc, false, strings.NewReader(""), nil, "/bin/probe", "status", "Cpus_allowed_list"); code != 0 || !strings.Contains(out, "\t"+own+"\n") {
			t.Errorf("an exec has exit %d and %q, the task %q", code, out, own)
		}
		return own
	}
	reserved := n.start(t, taskOf("reserved", nomad.JobTypeService, config(), func(_ *nomad.Job, task *nomad.Task) {
		task.Resources.CPU, task.Resources.Cores = nil, new(1)
	}))
	n.await(t, reserved, "running")
	shared := n.start(t, taskOf("shared", nomad.JobTypeService, config()))
	n.await(t, shared, "running")
	one, rest := cpus(reserved), cpus(shared)
	if strings.ContainsAny(one, ",-") || one == rest || rest == "" {
		t.Errorf("the task with a core of its own may use %q, the other %q", one, rest)
	}
}
