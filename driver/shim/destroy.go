package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/cgroup"
	"drover/driver/egress"
	"drover/driver/quota"
)

// Destroy ends whatever is left of a task and removes its cgroups and its state directory, from what the directory
// says alone. It may be called again, also when it failed half way, and for a directory that is not there.
func Destroy(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := abandon(dir); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := freeProject(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove state directory: %w", err)
	}
	return nil
}

// freeProject takes the limit from the project that a task's files belong to. Its use ends with the files.
func freeProject(dir string) error {
	c, err := readContainer(dir)
	if errors.Is(err, ErrGone) || c.Disk.Project == 0 {
		return nil
	}
	disk := Dir(dir).Disk()
	if _, statErr := os.Stat(disk); errors.Is(statErr, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, quota.SetLimit(disk, c.Disk.Project, quota.Amount{}))
}

// abandon does Destroy's work but for the directory. It has a deadline of its own: a caller that gave up is no reason
// to leave a container behind.
func abandon(dir string) error {
	c, err := readContainer(dir)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	// The shim first: it might be about to start something, or to unmount what we are about to remove.
	if err := kill(ctx, dir, shimFile); err != nil {
		return err
	}
	if err := kill(ctx, dir, initFile); err != nil {
		return err
	}
	container, shim, err := Groups(c)
	if err != nil {
		return err
	}
	err = errors.Join(wipe(ctx, container), wipe(ctx, shim), OpenEgress(c))
	shim.RemoveParent() // it is ours alone
	if c.Cgroup == "" {
		container.RemoveParent()
	}
	return err
}

// OpenEgress takes a container's egress rules out of its network namespace. It is for containers that have ended.
func OpenEgress(c driver.Container) error {
	if c.Egress == nil || c.NetNS == "" {
		return nil
	}
	return egress.Remove(c.NetNS, c.ID)
}

// kill ends the process that an identity file names, if it still is that process, and waits for its end.
func kill(ctx context.Context, dir, name string) error {
	var id identity
	err := readJSON(dir, name, &id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pidfd := openPidfd(id)
	if pidfd == nil {
		return nil
	}
	defer func() { _ = pidfd.Close() }()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	if err := waitPidfd(ctx, pidfd); err != nil {
		return fmt.Errorf("process %d did not end when killed: %w", id.PID, err)
	}
	return nil
}

func wipe(ctx context.Context, group cgroup.Group) error {
	if err := group.Kill(ctx); err != nil {
		return err
	}
	return group.RemoveSoon(ctx)
}
