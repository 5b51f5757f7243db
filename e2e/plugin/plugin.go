// Package plugin runs the real plugin binary without an agent: it starts the program as Nomad does, speaks Nomad's driver
// protocol to it, and makes for each task what Nomad would make: the allocation's directories, the log fifos, the cgroup.
//
//	node := plugin.Start(t, plugin.Options{})
//	task := node.Task(t, `image = "…"`, func(c *drivers.TaskConfig) { c.User = "vcap" })
//	task.Start(t)
//	exit := task.Wait(t)
//
// Whoever wants to know what Nomad makes of it uses package agent. This one is for the many things that only the plugin
// decides; a task takes a tenth of the time here.
package plugin

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/nomad/client/lib/numalib"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/zclconf/go-cty/cty/msgpack"

	"drover/driver/drivertest"
)

// Name is the file name that Nomad wants the plugin to have.
const Name = "nomad-driver-drover"

// Options say how a node is.
type Options struct {
	// Config is the body of the agent's plugin block, beside state_dir and image_dir, in HCL.
	Config string
	// StateDir is where tasks are kept; empty is a directory in Dir.
	StateDir string
	// UID runs the plugin as somebody else than root.
	UID uint32
	// Hide covers a file or directory of the host, such as that of a cgroup controller, so that the plugin finds it empty.
	Hide string
	// Unchecked does not wait until the driver is healthy.
	Unchecked bool
}

// Node is a machine with a running plugin.
type Node struct {
	drivers.DriverPlugin
	// Dir holds everything of the node: plugins/, state/, images/, alloc/.
	Dir string
	// Registry is the host:port of a registry of the test's own.
	Registry string

	options Options
	client  *goplugin.Client
	log     *log

	mu     sync.Mutex
	events []*drivers.TaskEvent
	tasks  []*Task
}

// Build makes plugin and shim as `make build` does, below dir.
func Build(tb testing.TB, dir string) {
	tb.Helper()
	for _, program := range []struct {
		cgo  string
		args []string
	}{
		{"0", []string{"-o", filepath.Join(dir, Name), "drover/cmd/nomad-driver-drover"}},
		{"1", []string{"-tags", "seccomp,osusergo,netgo,static_build", "-ldflags", "-linkmode external -extldflags -static",
			"-o", filepath.Join(dir, "drover-shim"), "drover/cmd/drover-shim"}},
	} {
		cmd := exec.CommandContext(tb.Context(), "go", append([]string{"build", "-trimpath"}, program.args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+program.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Fatalf("build %s: %v\n%s", program.args[len(program.args)-1], err, out)
		}
	}
}

// Start builds the programs and starts the plugin. When the test ends, all tasks are destroyed, and it is an error when
// anything of them is left.
func Start(t *testing.T, o Options) *Node {
	t.Helper()
	n := &Node{Dir: t.TempDir(), options: o, log: &log{}}
	for _, dir := range []string{n.Dir, filepath.Dir(n.Dir)} { // a container's root must be able to walk through
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	Build(t, filepath.Join(n.Dir, "plugins"))
	n.Registry = drivertest.Serve(t)
	n.Launch(t)
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *Node) stateDir() string { return cmp.Or(n.options.StateDir, filepath.Join(n.Dir, "state")) }

// Shim is the path of drover-shim.
func (n *Node) Shim() string { return filepath.Join(n.Dir, "plugins", "drover-shim") }

// Log is what the plugin has logged.
func (n *Node) Log() string { return n.log.String() }

// PID is the plugin's process.
func (n *Node) PID() int { return n.client.ReattachConfig().Pid }

// Kill ends the plugin by SIGKILL.
func (n *Node) Kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(n.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.client.Kill() // reaps it
}

// Launch starts the plugin, sets its configuration, and waits until it is healthy.
func (n *Node) Launch(t *testing.T) {
	t.Helper()
	cmd := exec.Command(filepath.Join(n.Dir, "plugins", Name)) //nolint:noctx // go-plugin ends it
	if n.options.Hide != "" {
		cmd = exec.Command("unshare", "-m", "sh", "-c", `if [ -d "$1" ]; then mount -t tmpfs none "$1"; else mount --bind /dev/null "$1"; fi && exec "$0"`, cmd.Path, n.options.Hide) //nolint:noctx // the same
	}
	if n.options.UID != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: n.options.UID, Gid: n.options.UID}}
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: n.log})
	n.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: base.Handshake, Cmd: cmd, Logger: logger, AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Plugins: map[string]goplugin.Plugin{base.PluginTypeBase: &base.PluginBase{}, base.PluginTypeDriver: drivers.NewDriverPlugin(nil, logger)},
	})
	conn, err := n.client.Client()
	if err != nil {
		t.Fatalf("start the plugin: %v\n%s", err, n.Log())
	}
	raw, err := conn.Dispense(base.PluginTypeDriver)
	if err != nil {
		t.Fatal(err)
	}
	n.DriverPlugin = raw.(drivers.DriverPlugin) //nolint:forcetypeassert // that is what it dispenses
	if err := n.Configure(t, n.options.Config); err != nil {
		t.Fatal(err)
	}
	n.listen(t)
	if !n.options.Unchecked {
		n.AwaitHealth(t, drivers.HealthStateHealthy)
	}
}

// Configure sets the plugin's configuration, given in HCL, the way an agent does.
func (n *Node) Configure(t *testing.T, body string) error {
	t.Helper()
	spec, err := n.ConfigSchema()
	if err != nil {
		t.Fatal(err)
	}
	value, err := decode(spec, fmt.Sprintf("state_dir = %q\nimage_dir = %q\n%s", n.stateDir(), filepath.Join(n.Dir, "images"), body))
	if err != nil {
		return err
	}
	raw, err := msgpack.Marshal(value, value.Type())
	if err != nil {
		return err
	}
	return n.SetConfig(&base.Config{
		ApiVersion: drivers.ApiVersion010, PluginConfig: raw,
		AgentConfig: &base.AgentConfig{Driver: &base.ClientDriverConfig{Topology: numalib.Scan(numalib.PlatformScanners(false))}},
	})
}

// AwaitHealth waits for a state of health, and returns the fingerprint that has it.
func (n *Node) AwaitHealth(t *testing.T, want drivers.HealthState) *drivers.Fingerprint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	prints, err := n.Fingerprint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	last := &drivers.Fingerprint{HealthDescription: "no fingerprint came"}
	for print := range prints {
		if last = print; print.Err != nil {
			break
		}
		if print.Health == want {
			return print
		}
	}
	t.Fatalf("the driver is not %s: %s %s %v\n%s", want, last.Health, last.HealthDescription, last.Err, n.Log())
	return nil
}

// listen keeps the plugin's task events.
func (n *Node) listen(t *testing.T) {
	t.Helper()
	events, err := n.TaskEvents(context.WithoutCancel(t.Context())) // it ends with the plugin
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for event := range events {
			if event.Err == nil {
				n.mu.Lock()
				n.events = append(n.events, event)
				n.mu.Unlock()
			}
		}
	}()
}

// Events are the events of a task so far.
func (n *Node) Events(taskID string) []*drivers.TaskEvent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.events), func(e *drivers.TaskEvent) bool { return e.TaskID != taskID })
}

// stop ends what was started and looks for leftovers.
func (n *Node) stop(t *testing.T) {
	t.Helper()
	for _, task := range n.tasks {
		if err := n.DestroyTask(task.Config.ID, true); err != nil {
			t.Errorf("destroy task %s: %v", task.Config.ID, err)
		}
	}
	for _, task := range n.tasks {
		task.release()
	}
	if t.Failed() {
		t.Log(n.Log())
	}
	n.client.Kill()
	if left := n.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
}

// log keeps what the plugin prints.
type log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Remove destroys a task and what was prepared for it, so that the node forgets it.
func (n *Node) Remove(t *testing.T, task *Task) {
	t.Helper()
	if err := n.DestroyTask(task.Config.ID, true); err != nil {
		t.Fatalf("destroy task %s: %v", task.Config.ID, err)
	}
	task.release()
	if err := os.RemoveAll(task.Config.AllocDir); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tasks = slices.DeleteFunc(n.tasks, func(other *Task) bool { return other == task })
	n.events = slices.DeleteFunc(n.events, func(e *drivers.TaskEvent) bool { return e.TaskID == task.Config.ID })
}
