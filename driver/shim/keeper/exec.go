package keeper

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/bundle"
	"drover/driver/runc"
	"drover/driver/shim"
)

// outputWait is how long output is collected after a process has ended, when something else holds its pipes.
const outputWait = 500 * time.Millisecond

// ServeExec answers one exec on a connection, for a task whose shim is dead.
func ServeExec(ctx context.Context, dir string, raw net.Conn) error {
	k := &keeper{dir: shim.Dir(dir)}
	var err error
	if k.wish, err = k.dir.Container(); err != nil {
		return err
	}
	pid, err := k.dir.Init()
	if err != nil {
		return err
	}
	if k.container, err = runc.Load(k.dir.Runc(), k.wish.ID, k.wish.CpusetCgroup); err != nil {
		return err
	}
	defer func() { _ = k.container.Close() }()
	if k.root, err = runc.OpenRootfs(filepath.Join("/proc", strconv.Itoa(pid), "root")); err != nil {
		return err
	}
	defer func() { _ = k.root.Close() }()
	if k.host, err = lookAtHost(); err != nil {
		return err
	}
	return shim.ServeConn(ctx, raw, k.wish.ID, k)
}

// Exec implements shim.Handler.
func (k *keeper) Exec(ctx context.Context, r shim.ExecRequest) (driver.Exit, error) {
	spec, err := k.execSpec(r)
	if err != nil {
		return driver.Exit{}, err
	}
	if r.TTY {
		return k.execTTY(ctx, spec, r)
	}
	return k.execPipes(ctx, spec, r)
}

// execSpec fills in what the request leaves to the task.
func (k *keeper) execSpec(r shim.ExecRequest) (*specs.Process, error) {
	select {
	case <-k.ended:
		return nil, shim.ErrNotRunning
	default:
	}
	p := k.withDefaults(r.Process)
	u, err := k.account(p.User)
	if err != nil {
		return nil, err
	}
	if p.Dir != "" && !k.root.IsDir(p.Dir) {
		return nil, fmt.Errorf("directory %s does not exist in the container", p.Dir)
	}
	spec, err := bundle.Process(p, k.wish, k.facts(u, p.Dir))
	if err != nil {
		return nil, err
	}
	if r.TTY {
		spec.Terminal = true
		spec.ConsoleSize = &specs.Box{Width: 80, Height: 24}
		select {
		case size := <-r.Resize:
			spec.ConsoleSize = &specs.Box{Width: uint(size[0]), Height: uint(size[1])}
		default:
		}
	}
	return spec, nil
}

// withDefaults: an exec is the same user in the same directory with the same environment as the task's own process.
func (k *keeper) withDefaults(p driver.Process) driver.Process {
	own := k.wish.Process
	if k.wish.Work != nil {
		own = k.workDefaults()
	}
	if p.User == "" {
		p.User = own.User
	}
	if p.Dir == "" {
		p.Dir = own.Dir
	}
	p.Env = append(append([]string{}, own.Env...), p.Env...)
	return p
}

func (k *keeper) execPipes(ctx context.Context, spec *specs.Process, r shim.ExecRequest) (driver.Exit, error) {
	var ends [3]struct{ read, write *os.File }
	defer func() {
		for _, end := range ends {
			_ = end.read.Close() // nil files and second closes only return errors
			_ = end.write.Close()
		}
	}()
	for i := range ends {
		var err error
		if ends[i].read, ends[i].write, err = os.Pipe(); err != nil {
			return driver.Exit{}, fmt.Errorf("make pipe: %w", err)
		}
	}
	running, err := k.container.Start(runc.Process{
		Spec: spec, Stdin: ends[0].read, Stdout: ends[1].write, Stderr: ends[2].write,
	})
	if err != nil {
		return driver.Exit{}, err
	}
	_ = ends[0].read.Close()
	_ = ends[1].write.Close()
	_ = ends[2].write.Close()
	go func() {
		_, _ = io.Copy(ends[0].write, r.Stdin)
		_ = ends[0].write.Close()
	}()
	var copies sync.WaitGroup
	copies.Go(func() { _, _ = io.Copy(r.Stdout, ends[1].read) })
	copies.Go(func() { _, _ = io.Copy(r.Stderr, ends[2].read) })
	exit, err := waitKill(ctx, running)
	waitSome(&copies, outputWait)
	return exit, err
}

func (k *keeper) execTTY(ctx context.Context, spec *specs.Process, r shim.ExecRequest) (driver.Exit, error) {
	running, err := k.container.Start(runc.Process{Spec: spec})
	if err != nil {
		return driver.Exit{}, err
	}
	defer func() { _ = running.Console.Close() }()
	terminal, err := console.ConsoleFromFile(running.Console)
	if err != nil {
		_ = running.Signal(unix.SIGKILL)
		_, _ = running.Wait()
		return driver.Exit{}, fmt.Errorf("use terminal: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case size := <-r.Resize:
				_ = terminal.Resize(console.WinSize{Width: size[0], Height: size[1]})
			}
		}
	}()
	go func() {
		_, _ = io.Copy(running.Console, r.Stdin)
		_, _ = running.Console.Write([]byte{4}) // the end of input, as a terminal says it
	}()
	var copies sync.WaitGroup
	copies.Go(func() { _, _ = io.Copy(r.Stdout, running.Console) })
	exit, err := waitKill(ctx, running)
	waitSome(&copies, outputWait)
	return exit, err
}

// waitKill waits for a process, and kills it when the context ends, with what it has started: each has a session, and
// so a process group, of its own.
func waitKill(ctx context.Context, running *runc.Running) (driver.Exit, error) {
	defer context.AfterFunc(ctx, func() {
		if running.Signal(unix.Signal(0)) == nil { // it was not waited for yet, so that its number is still its own
			_ = unix.Kill(-running.PID(), unix.SIGKILL)
		}
		_ = running.Signal(unix.SIGKILL)
	})()
	status, err := running.Wait()
	if err != nil {
		return driver.Exit{}, err
	}
	return exitOf(status), nil
}

// waitSome waits for a group, but not for ever.
func waitSome(group *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

var _ shim.Handler = (*keeper)(nil)
