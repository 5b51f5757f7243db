// Package runc makes containers through libcontainer, and is the only package that imports it.
//
// A container is made from an OCI runtime spec (package bundle makes them), kept in a state directory, and is one of
// three things: created here, loaded from the state that another process left, or gone. Its processes are specs too.
// Nobody but the process that started one can wait for it.
//
// Linking this package has a price: its binary runs a C constructor before main (nsenter), and is started again inside
// every container, as `<binary> init`. So it belongs into cmd/drover-shim alone, which calls Init first of all.
//
// Reading files of a container happens here too (Rootfs): whatever links, devices and fifos an image brought, they
// are resolved as its own processes would, and never lead outside it.
package runc

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	_ "github.com/opencontainers/cgroups/devices" // device rules fail without it
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins namespaces before Go's runtime starts
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"drover/driver/cgroup"
)

// Init is what the binary runs as `init` inside a container that is being made. It does not return. It must be called
// from an init function, before flags are parsed and goroutines started.
func Init() { libcontainer.Init() }

// Options say what Create makes.
type Options struct {
	// State is the directory that holds libcontainer's state.
	State string
	ID    string
	Spec  *specs.Spec
	// CpusetCgroup is an absolute cgroup v1 directory that every process is moved to; empty for none.
	CpusetCgroup string
	// Filters is a directory for compiled seccomp profiles; empty compiles anew for each process.
	Filters string
}

// Container is a container that was made.
type Container struct {
	inner  *libcontainer.Container
	cpuset string
	gate   *os.File // loads the system call filter; nil when libcontainer does
	// Slow says why each process of this container compiles its own filter, where that was not asked for.
	Slow error
	pass *pass // process 1's way through the gate, from Start to Begin
}

// Process is one process to be started. All its descriptors are given to it as they are.
type Process struct {
	Spec *specs.Process
	// Init makes it the container's process 1.
	Init bool
	// Stdin, Stdout and Stderr may be nil, for /dev/null.
	Stdin, Stdout, Stderr *os.File
	// Extra, when set, is the process's descriptor 5, or 3 in a container without a gate.
	Extra *os.File
}

// Running is a process that was started.
type Running struct {
	process *libcontainer.Process
	pid     int
	// Console is the master side of the process's terminal, when its spec asks for one. The caller closes it.
	Console *os.File
}

// Create makes a container, without any process yet.
func Create(o Options) (*Container, error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: o.ID, Spec: o.Spec})
	if err != nil {
		return nil, fmt.Errorf("convert spec: %w", err)
	}
	c := &Container{cpuset: o.CpusetCgroup}
	if o.Filters != "" && gateable(o.Spec, config) {
		if c.Slow = c.makeGate(o, config); c.Slow == nil {
			config.Seccomp = nil
			config.Labels = append(config.Labels, gateLabel)
		}
	}
	if c.inner, err = libcontainer.Create(o.State, o.ID, config); err != nil {
		return nil, errors.Join(fmt.Errorf("create container: %w", err), c.Close())
	}
	return c, nil
}

// Load finds a container that another process made.
func Load(state, id, cpusetCgroup string) (*Container, error) {
	inner, err := libcontainer.Load(state, id)
	if err != nil {
		return nil, fmt.Errorf("load container: %w", err)
	}
	c := &Container{inner: inner, cpuset: cpusetCgroup}
	if slices.Contains(inner.Config().Labels, gateLabel) {
		if err := c.loadGate(state); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close lets go of what this process has of a container, which goes on.
func (c *Container) Close() error {
	if c.gate == nil {
		return nil
	}
	return c.gate.Close()
}

// Start starts a process. Process 1 is told to begin with Begin; every other one runs when Start returns.
func (c *Container) Start(p Process) (*Running, error) {
	process, err := convert(p)
	if err != nil {
		return nil, err
	}
	pass, err := c.throughGate(process)
	if err != nil {
		return nil, err
	}
	running := &Running{process: process}
	running.Console, err = c.startWithConsole(process, p.Spec.Terminal)
	if err != nil {
		pass.close()
		return nil, err
	}
	if running.pid, err = process.Pid(); err != nil {
		pass.close()
		return nil, fmt.Errorf("started process: %w", err)
	}
	// libcontainer knows a single path for all hierarchies, and cpusets are Nomad's to share out.
	if c.cpuset != "" {
		err = cgroup.AddPID(c.cpuset, running.pid)
		if err != nil && !running.alive() {
			err = nil
		}
	}
	if p.Init {
		c.pass = pass
	} else {
		err = errors.Join(err, pass.wait())
	}
	if err != nil {
		pass.close()
		running.discard()
		return nil, err
	}
	return running, nil
}

// startWithConsole starts a process, and returns the master side of its terminal when it has one.
func (c *Container) startWithConsole(process *libcontainer.Process, terminal bool) (*os.File, error) {
	if !terminal {
		return nil, c.inner.Start(process)
	}
	parent, child, err := utils.NewSockPair("console")
	if err != nil {
		return nil, fmt.Errorf("make console socket: %w", err)
	}
	defer func() { _ = parent.Close() }()
	defer func() { _ = child.Close() }()
	process.ConsoleSocket = child
	if err := c.inner.Start(process); err != nil {
		return nil, err
	}
	console, err := utils.RecvFile(parent) //nolint:staticcheck // its successor is internal to runc
	if err != nil {
		_ = process.Signal(unix.SIGKILL)
		_, _ = process.Wait()
		return nil, fmt.Errorf("receive console: %w", err)
	}
	return console, nil
}

// Begin lets process 1, which waits once it is set up, become the program that its spec names, and returns when it has.
func (c *Container) Begin() error {
	if err := c.inner.Exec(); err != nil {
		c.pass.close()
		return err
	}
	return c.pass.wait()
}

// Destroy removes the container's state and its cgroups; its processes must have ended.
func (c *Container) Destroy() error { return c.inner.Destroy() }

// PID returns the process's number on the host.
func (r *Running) PID() int { return r.pid }

// Signal sends a signal to the process.
func (r *Running) Signal(sig syscall.Signal) error { return r.process.Signal(sig) }

// discard ends a process that is of no use.
func (r *Running) discard() {
	_ = r.Signal(unix.SIGKILL)
	_, _ = r.Wait()
	if r.Console != nil {
		_ = r.Console.Close()
	}
}

func (r *Running) alive() bool { return unix.Kill(r.pid, 0) == nil }

// Wait waits until the process ends. It must be called once.
func (r *Running) Wait() (unix.WaitStatus, error) {
	state, err := r.process.Wait()
	if state == nil {
		return 0, fmt.Errorf("wait for process %d: %w", r.pid, err)
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return 0, fmt.Errorf("wait for process %d: no status", r.pid)
	}
	return unix.WaitStatus(status), nil
}

// convert makes libcontainer's idea of a process.
func convert(p Process) (*libcontainer.Process, error) {
	if len(p.Spec.Args) == 0 || !filepath.IsAbs(p.Spec.Cwd) {
		return nil, errors.New("a process needs a command and an absolute directory")
	}
	process := &libcontainer.Process{
		Args:            p.Spec.Args,
		Env:             p.Spec.Env,
		UID:             int(p.Spec.User.UID),
		GID:             int(p.Spec.User.GID),
		Cwd:             p.Spec.Cwd,
		NoNewPrivileges: &p.Spec.NoNewPrivileges,
		AppArmorProfile: p.Spec.ApparmorProfile,
		Init:            p.Init,
	}
	for _, gid := range p.Spec.User.AdditionalGids {
		process.AdditionalGroups = append(process.AdditionalGroups, int(gid))
	}
	if caps := p.Spec.Capabilities; caps != nil {
		process.Capabilities = &configs.Capabilities{
			Bounding: caps.Bounding, Effective: caps.Effective, Inheritable: caps.Inheritable,
			Permitted: caps.Permitted, Ambient: caps.Ambient,
		}
	}
	for _, limit := range p.Spec.Rlimits {
		kind, err := rlimit(limit.Type)
		if err != nil {
			return nil, err
		}
		process.Rlimits = append(process.Rlimits, configs.Rlimit{Type: kind, Hard: limit.Hard, Soft: limit.Soft})
	}
	if size := p.Spec.ConsoleSize; p.Spec.Terminal && size != nil {
		process.ConsoleWidth, process.ConsoleHeight = clamp16(size.Width), clamp16(size.Height)
	}
	if p.Extra != nil {
		process.ExtraFiles = []*os.File{p.Extra}
	}
	if !p.Spec.Terminal { // a nil *os.File in an interface is not nil
		if p.Stdin != nil {
			process.Stdin = p.Stdin
		}
		if p.Stdout != nil {
			process.Stdout = p.Stdout
		}
		if p.Stderr != nil {
			process.Stderr = p.Stderr
		}
	}
	return process, nil
}

func clamp16(n uint) uint16 { return uint16(min(n, math.MaxUint16)) } //nolint:gosec // clamped
