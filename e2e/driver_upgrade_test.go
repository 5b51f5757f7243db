//go:build e2e

package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
)

// firstRelease is the commit whose plugin and shim are the oldest that an upgrade must take over from.
const firstRelease = "3ad8161"

// TestDriver_upgrade replaces plugin and shim under running tasks: once those of this source under another version, which
// also are files of another inode, and once those of the first release where the history has it.
func TestDriver_upgrade(t *testing.T) {
	n := startDriverNode(t, 512, "")
	ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/probe:1")
	current := t.TempDir()
	for _, path := range []string{n.plugin, n.shim} {
		copyFile(t, path, filepath.Join(current, filepath.Base(path)))
	}
	t.Run("from the same source", func(t *testing.T) {
		old := t.TempDir()
		buildVersion(t, ".", old, "0.0.1-old")
		checkUpgrade(t, n, ref, "same", old, current)
	})
	t.Run("from the first release", func(t *testing.T) {
		source := t.TempDir()
		archive, err := exec.CommandContext(t.Context(), "git", "-C", "..", "archive", firstRelease).Output()
		if err != nil {
			t.Skipf("this checkout's history does not have %s, the first release: %v", firstRelease, err)
		}
		unpack := exec.CommandContext(t.Context(), "tar", "-x", "-C", source)
		unpack.Stdin = bytes.NewReader(archive)
		if out, err := unpack.CombinedOutput(); err != nil {
			t.Fatalf("unpack: %v: %s", err, out)
		}
		old := t.TempDir()
		buildVersion(t, source, old, "0.0.1-first")
		checkUpgrade(t, n, ref, "first", old, current)
	})
}

// buildVersion builds plugin and shim of a source tree under a version.
func buildVersion(t *testing.T, source, into, version string) {
	t.Helper()
	stamp := "-X drover/driver.Version=" + version
	for _, program := range []struct {
		cgo  string
		args []string
	}{
		{"0", []string{"-ldflags", stamp, "-o", into + "/" + pluginName, "drover/cmd/nomad-driver-drover"}},
		{"1", []string{"-tags", "seccomp,osusergo,netgo,static_build", "-ldflags", stamp + " -linkmode external -extldflags -static", "-o", into + "/drover-shim", "drover/cmd/drover-shim"}},
	} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath"}, program.args...)...)
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+program.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", version, err, out)
		}
	}
}

// install puts the programs of a directory in the place of the node's, as a package manager does, and starts the agent anew.
func (n *driverNode) install(t *testing.T, from string) {
	t.Helper()
	if err := n.cluster.StopNomad(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{n.plugin, n.shim} {
		copyFile(t, filepath.Join(from, filepath.Base(path)), path+".new")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	n.restart(t)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	body, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, body, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func checkUpgrade(t *testing.T, n *driverNode, ref, name, old, current string) {
	t.Helper()
	image := func(args ...string) map[string]any { return map[string]any{"image": ref, "args": args} }
	n.install(t, old)
	alloc := n.start(t, taskOf(name+"-survivor", nomad.JobTypeService, image("trap", "0")))
	ending := n.start(t, taskOf(name+"-ending", nomad.JobTypeBatch, image("then", "--", "echo", "ready", "--", "sleep", "15", "--", "exit", "7")))
	for _, a := range []*nomad.Allocation{alloc, ending} {
		n.await(t, a, "running")
		n.awaitLog(t, a, "stdout", "ready")
	}
	pid := n.containerPID(t, alloc)

	n.install(t, current)
	if state := n.await(t, alloc, "running"); state.Restarts != 0 {
		t.Errorf("the task was restarted: %s", describe(state))
	}
	if got := n.containerPID(t, alloc); got != pid {
		t.Errorf("process 1 of the container is %d, was %d", got, pid)
	}
	if running := n.shimPIDs(); len(running) != 0 {
		t.Errorf("tasks run under the new shim already: %v", running)
	}
	if code, out, errs := n.exec(t, alloc, false, strings.NewReader("in"), nil, "/bin/probe", "then", "--", "cat", "--", "exit", "3"); code != 3 || out != "in" {
		t.Errorf("exec: %d, %q, %q", code, out, errs)
	}
	if end := event(n.await(t, ending, "dead"), nomad.TaskTerminated).Details; end["exit_code"] != "7" {
		t.Errorf("a task of the old shim ended with %v, want exit code 7", end)
	}
	young := n.start(t, taskOf(name+"-young", nomad.JobTypeService, image("trap", "0")))
	n.await(t, young, "running")
	if running := n.shimPIDs(); len(running) != 1 {
		t.Errorf("%d new tasks run under the new shim, want 1", len(running))
	}
	n.awaitLog(t, young, "stdout", "ready")
	for _, a := range []*nomad.Allocation{alloc, young} {
		if _, err := n.cluster.Nomad.Allocations().Stop(a, nil); err != nil {
			t.Fatal(err)
		}
		state := n.await(t, a, "dead")
		n.awaitLog(t, a, "stdout", "SIGTERM")
		if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "0" {
			t.Errorf("ended with %v", end)
		}
	}
}
