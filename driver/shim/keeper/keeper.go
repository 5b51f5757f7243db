// Package keeper is what the process of a task, `drover-shim run`, does: it makes the container, keeps it, and writes
// down how it ended.
//
//	mounts the layers in a mount namespace of its own, so that nothing is ever mounted on the host
//	starts the container with Nomad's log fifos as its output, without copying
//	runs the task's Work, when it has any, as processes beside a reaping process 1
//	answers clients on the socket (it is package shim's Handler)
//	ends by writing exit.json, and then lets go of everything
//
// The order at the end is: all processes gone, kills for want of memory counted, log fifos closed, exit.json on the
// disk, and only then do waiting clients hear of it.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/bundle"
	"drover/driver/cgroup"
	"drover/driver/runc"
	"drover/driver/shim"
)

// graceful is how long a process has after a signal when nobody said otherwise.
const graceful = 10 * time.Second

// killWait is how long killed processes may take to be gone.
const killWait = 15 * time.Second

// keeper is one task.
type keeper struct {
	dir       shim.Dir
	wish      driver.Container
	group     cgroup.Group
	host      host
	labels    struct{ process, mount string } // SELinux's
	container *runc.Container
	root      *runc.Rootfs // the container's own view of its root
	init      *runc.Running
	logs      *logs
	log       *slog.Logger
	started   time.Time
	began     time.Time     // when this process began to make the container
	mounting  time.Duration // how long it took to mount the root file system
	joined    chan error    // gives whether this process is in its own cgroup
	tending   *tending      // what process 1 tells of the task's process, when it is ours (option init)
	lifeline  *os.File      // while it is open, the reaper of a container with Work knows that we live

	shared   shared   // mounts that the container has in common with the host
	warnings []string // to be told once the container runs
	// mappable and mappableTree say which mounts' sources can be id-mapped, by path.
	mappable, mappableTree map[string]bool

	events events

	mu       sync.Mutex
	mains    map[*runc.Running]bool // running main processes of Work
	stopping *stop                  // set once somebody asked for the end
	tooMuch  string                 // set once the task was killed for what it had written

	cancelWork context.CancelFunc

	ended chan struct{} // closed when exit is set and on disk
	exit  driver.Exit
}

// stop is how the task is to be ended.
type stop struct {
	signal  unix.Signal
	timeout time.Duration
}

// Run makes and keeps the task of a state directory. It reports to the plugin that started it, and returns when the
// task has ended and exit.json is written.
func Run(ctx context.Context, dir string, log *slog.Logger) error {
	k := &keeper{
		dir: shim.Dir(dir), log: log, began: time.Now(), ended: make(chan struct{}),
		mains: map[*runc.Running]bool{}, cancelWork: func() {},
	}
	k.events.init(k.dir)
	// Whatever the agent's parents left open is not for the programs that this one starts.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		log.Warn("cannot keep inherited descriptors to ourselves", "error", err)
	}
	// For `init` inside the container, which libcontainer gives this one variable: its few milliseconds use one processor,
	// and are fewer when Go does not prepare for more.
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		return fmt.Errorf("prepare for containers: %w", err)
	}
	// A shim ends with its task and not before. Caught, and not ignored: that would be inherited by the container.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	listener, err := k.start()
	if reportErr := shim.Report(err); reportErr != nil {
		log.Warn("nobody waits for this shim's report", "error", reportErr)
	}
	if err != nil {
		k.undo()
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		shim.Serve(ctx, listener, k.wish.ID, k, log)
	}()
	unwatch := k.watchDisk(ctx)
	k.keep(ctx)
	unwatch()
	err = errors.Join(k.finish(), listener.Close())
	<-served
	return err
}

// keep waits for the task's end.
func (k *keeper) keep(ctx context.Context) {
	k.emit(startedEvent(k.mounting, k.started.Sub(k.began)-k.mounting))
	for _, warning := range k.warnings {
		k.emit(shim.Event{Phase: driver.PhaseWarning, Message: warning})
	}
	if k.wish.Work == nil {
		status, err := k.init.Wait()
		k.exit = exitOf(k.tending.status(status))
		if err != nil {
			k.log.Error("cannot learn how process 1 ended", "error", err)
			k.exit = driver.Exit{Code: 1, Reason: err.Error()}
		}
		return
	}
	gone := make(chan struct{})
	go func() { // the reaper ends only when it is killed: by us, or for want of memory
		defer close(gone)
		if _, err := k.init.Wait(); err != nil {
			k.log.Error("cannot learn how process 1 ended", "error", err)
		}
	}()
	k.exit = k.work(ctx, gone)
	if err := k.killAll(); err != nil {
		k.log.Error("cannot end the container", "error", err)
	}
	<-gone
}

// finish writes down how the task ended.
func (k *keeper) finish() error {
	if err := k.killAll(); err != nil { // members of the group outside the pid namespace, if there ever were any
		k.log.Error("cannot end all of the container's processes", "error", err)
	}
	if kills, err := k.group.OOMKills(); err != nil {
		k.log.Warn("cannot learn whether memory ran out", "error", err)
	} else {
		k.exit.OOMKilled = kills > 0 && k.exit.Code != 0
	}
	k.blameDisk()
	k.exit.Started, k.exit.Ended = k.started, time.Now()
	if k.wish.Work != nil {
		k.emit(endedEvent(k.exit))
	}
	k.release()
	err := k.dir.SetExit(k.exit)
	if err != nil {
		k.log.Error("cannot write how the task ended", "error", err)
	}
	k.events.close()
	close(k.ended)
	return err
}

// undo ends a container that could not be started.
func (k *keeper) undo() {
	if k.container != nil {
		if err := k.killAll(); err != nil {
			k.log.Warn("cannot end the container", "error", err)
		}
	}
	k.release()
}

// release lets go of what the container had, once its processes have ended; what fails here, Destroy does again.
func (k *keeper) release() {
	if k.container != nil {
		if err := k.container.Destroy(); err != nil {
			k.log.Warn("cannot remove the container", "error", err)
		}
		_ = k.container.Close()
	}
	if k.root != nil {
		_ = k.root.Close()
	}
	if k.logs != nil {
		k.logs.close()
	}
	if k.lifeline != nil {
		_ = k.lifeline.Close()
	}
	if err := shim.OpenEgress(k.wish); err != nil {
		k.log.Warn("cannot remove the egress rules", "error", err)
	}
	k.shared.close()
	k.tending.close()
}

func (k *keeper) killAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	return k.group.Kill(ctx)
}

// exitOf translates a wait status as shells do: 128+n for a signal.
func exitOf(status unix.WaitStatus) driver.Exit {
	if status.Signaled() {
		return driver.Exit{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	return driver.Exit{Code: status.ExitStatus()}
}

// Wait implements shim.Handler.
func (k *keeper) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	case <-k.ended:
		return k.exit, nil
	}
}

// Signal implements shim.Handler.
func (k *keeper) Signal(_ context.Context, sig unix.Signal) error {
	var errs []error
	for _, process := range k.mainProcesses() {
		if err := process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Stop implements shim.Handler. Only the first caller's way counts; all wait for the end.
func (k *keeper) Stop(ctx context.Context, sig unix.Signal, timeout time.Duration) error {
	k.mu.Lock()
	first := k.stopping == nil
	if first {
		k.stopping = &stop{signal: sig, timeout: timeout}
	}
	k.mu.Unlock()
	if first {
		k.log.Info("stopping", "signal", unix.SignalName(sig), "timeout", timeout)
		k.terminate(ctx, sig)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-k.ended:
		return nil
	case <-timer.C:
	}
	if err := k.killAll(); err != nil {
		return err
	}
	bound := time.NewTimer(killWait)
	defer bound.Stop()
	select {
	case <-k.ended:
		return nil
	case <-bound.C:
		return fmt.Errorf("the container has not ended %s after it was killed", killWait)
	}
}

// terminate asks the task to end: process 1, or the work, whose processes then get the signal.
func (k *keeper) terminate(ctx context.Context, sig unix.Signal) {
	if k.wish.Work != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.cancelWork()
		return
	}
	if err := k.Signal(ctx, sig); err != nil {
		k.log.Warn("cannot signal the task", "error", err)
	}
}

func (k *keeper) mainProcesses() []*runc.Running {
	if k.wish.Work == nil {
		return []*runc.Running{k.init}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []*runc.Running
	for process := range k.mains {
		list = append(list, process)
	}
	return list
}

// ending returns how processes are to be ended now.
func (k *keeper) ending() stop {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping != nil {
		return *k.stopping
	}
	return stop{signal: syscall.SIGTERM, timeout: graceful}
}

// facts are what the bundle's rules need for one more process of the container.
func (k *keeper) facts(u runc.User, dir string) bundle.Facts {
	account := bundle.User(u)
	return bundle.Facts{
		User: account, WorkDir: bundle.Dir(dir, account, k.root.IsDir),
		Capabilities: k.host.capabilities, HardLimits: k.host.hardLimits,
	}
}
