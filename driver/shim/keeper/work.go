package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
	"drover/driver/action"
	"drover/driver/bundle"
	"drover/driver/runc"
	"drover/driver/shim"
	"drover/driver/unpack"
)

// work runs the task's action tree. It ends early when process 1 has gone, for without it nothing can run.
func (k *keeper) work(ctx context.Context, gone <-chan struct{}) driver.Exit {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.mu.Lock()
	k.cancelWork = cancel
	if k.stopping != nil {
		cancel()
	}
	k.mu.Unlock()
	done := make(chan action.Outcome, 1)
	go func() {
		done <- action.Run(ctx, action.Options{
			World: &world{k}, Work: *k.wish.Work, Temp: string(k.dir), Log: k.log,
		}, func() { k.emit(shim.Event{Phase: driver.PhaseHealthy}) })
	}()
	var outcome action.Outcome
	select {
	case outcome = <-done:
	case <-gone:
		cancel()
		outcome = <-done
		if outcome.Reason == "" && !k.isStopping() {
			outcome = action.Outcome{Code: 137, Reason: "the container's process 1 was killed"}
		}
	}
	exit := driver.Exit{Code: outcome.Code, Reason: outcome.Reason, Result: outcome.Result}
	if exit.Code > 128 && exit.Code < 128+65 {
		exit.Signal = exit.Code - 128
	}
	return exit
}

func (k *keeper) isStopping() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stopping != nil
}

// workDefaults are what an exec gets when the container runs Work: the user, the directory and the environment of its
// main process, as somebody who logs in to an app expects.
func (k *keeper) workDefaults() driver.Process {
	work := k.wish.Work
	p := driver.Process{Env: append([]string{}, work.Env...)}
	if run := mainRun(work.Info); run != nil {
		p.User, p.Dir = run.User, run.Dir
		for _, v := range run.Env {
			p.Env = append(p.Env, v.Name+"="+v.Value)
		}
	}
	p.Env = append(p.Env, work.InstanceEnv...)
	return p
}

// mainRun finds the first Run of a definition's action, or nil.
func mainRun(info driver.RunInfo) *models.RunAction {
	var lrp models.DesiredLRP
	var task models.TaskDefinition
	root := (*models.Action)(nil)
	switch {
	case info.Kind == driver.KindLRP && lrp.Unmarshal(info.Definition) == nil:
		root = lrp.Action
	case info.Kind == driver.KindTask && task.Unmarshal(info.Definition) == nil:
		root = task.Action
	}
	return firstRun(root)
}

func firstRun(a *models.Action) *models.RunAction {
	if a == nil {
		return nil
	}
	var inner []*models.Action
	switch v := a.GetValue().(type) {
	case *models.RunAction:
		return v
	case *models.TimeoutAction:
		inner = []*models.Action{v.Action}
	case *models.TryAction:
		inner = []*models.Action{v.Action}
	case *models.EmitProgressAction:
		inner = []*models.Action{v.Action}
	case *models.SerialAction:
		inner = v.Actions
	case *models.ParallelAction:
		inner = v.Actions
	case *models.CodependentAction:
		inner = v.Actions
	}
	for _, next := range inner {
		if run := firstRun(next); run != nil {
			return run
		}
	}
	return nil
}

// world is the container as its action tree sees it.
type world struct{ k *keeper }

var _ action.World = (*world)(nil)

// Run implements action.World.
func (w *world) Run(ctx context.Context, c action.Command) (action.Status, error) {
	k := w.k
	u, err := k.account(c.User)
	if err != nil {
		return action.Status{}, err
	}
	if c.Dir != "" && !k.root.IsDir(c.Dir) {
		return action.Status{}, fmt.Errorf("directory %s does not exist in the container", c.Dir)
	}
	spec, err := bundle.Process(c.Process, k.wish, k.facts(u, c.Dir))
	if err != nil {
		return action.Status{}, err
	}
	process := runc.Process{Spec: spec, Stdout: k.logs.stdout, Stderr: k.logs.stderr}
	if c.Silent {
		process.Stdout, process.Stderr = nil, nil
	}
	before, _ := k.group.OOMKills() // without the number there is no more to tell
	running, err := k.container.Start(process)
	if err != nil {
		return action.Status{}, err
	}
	if !c.Check {
		k.setMain(running, true)
		defer k.setMain(running, false)
	}
	ended := make(chan struct{})
	defer context.AfterFunc(ctx, func() { k.end(running, ended) })()
	status, err := running.Wait()
	close(ended)
	if err != nil {
		return action.Status{}, err
	}
	after, _ := k.group.OOMKills()
	return action.Status{Code: exitOf(status).Code, OutOfMemory: after > before}, nil
}

func (k *keeper) setMain(process *runc.Running, runs bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if runs {
		k.mains[process] = true
	} else {
		delete(k.mains, process)
	}
}

// end tells a process to end, and kills it when it has not in time.
func (k *keeper) end(running *runc.Running, ended <-chan struct{}) {
	how := k.ending()
	if err := running.Signal(how.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		k.log.Warn("cannot signal a process", "error", err)
	}
	timer := time.NewTimer(how.timeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		if err := running.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			k.log.Warn("cannot kill a process", "error", err)
		}
	}
}

// Unpack implements action.World.
func (w *world) Unpack(ctx context.Context, user, to string, archive *os.File) error {
	u, err := w.k.root.User(user)
	if err != nil {
		return err
	}
	_, err = unpack.Run(ctx, []string{"/proc/self/exe", "unpack"}, unpack.Job{
		DestFD: w.k.root.Dir(),
		IDs:    w.k.wish.IDs,
		Owner:  &unpack.Owner{UID: u.UID, GID: u.GID},
		Prefix: inHome(u, to),
	}, archive)
	return err
}

// Open implements action.World.
func (w *world) Open(user, name string) (*os.File, error) {
	u, err := w.k.root.User(user)
	if err != nil {
		return nil, err
	}
	return w.k.root.Open(inHome(u, name))
}

// inHome makes a path absolute. Where an account has no home, vcap's is meant, as in every Cloud Foundry stack.
func inHome(u runc.User, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	home := u.Home
	if home == "" || home == "/" {
		home = "/home/vcap"
	}
	return path.Join(home, name)
}

// Log implements action.World.
func (w *world) Log(line string) { w.k.logs.line(line) }

// Address implements action.World.
func (w *world) Address() (ip string, err error) {
	err = inNetNS(w.k.wish.NetNS, func() error {
		ip, err = firstIPv4()
		return err
	})
	return ip, err
}

// Dial implements action.World.
func (w *world) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = inNetNS(w.k.wish.NetNS, func() error {
		var dialer net.Dialer // an address without names is dialled on the calling thread
		conn, err = dialer.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}
