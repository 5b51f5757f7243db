package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// What a client does for a task whose shim was killed. The container has gone on: libcontainer sets no parent-death
// signal. Only the shim could wait for its process 1, but the kernel tells whoever held a pidfd of it in time, or, when
// it is an older one, whoever listened in time.

// killWait is how long a killed group may take to be gone.
const killWait = 15 * time.Second

// openPidfd holds a process, or returns nil when it is no more.
func openPidfd(id identity) *os.File {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	if !id.alive() {
		_ = file.Close()
		return nil
	}
	return file
}

func (c *Client) waitWithoutShim(ctx context.Context) (driver.Exit, error) {
	if c.init.PID == 0 {
		return driver.Exit{}, fmt.Errorf("the shim died before it started the container: %w", ErrExitUnknown)
	}
	if c.pidfd == nil {
		return driver.Exit{}, fmt.Errorf("the shim was killed, and the container ended before this plugin looked: %w", ErrExitUnknown)
	}
	c.listen()
	guard := c.guardDisk(ctx)
	err := waitPidfd(ctx, c.pidfd)
	exceeded := guard()
	if err != nil {
		return driver.Exit{}, err
	}
	status, err := exitOfPidfd(ctx, c.pidfd)
	if err != nil {
		status, err = c.exitHeard(ctx, err)
	}
	if err != nil {
		return driver.Exit{}, fmt.Errorf("%w: %w", ErrExitUnknown, err)
	}
	exit := exitOf(status)
	exit.Ended = time.Now()
	if info, err := os.Stat(filepath.Join(c.dir, initFile)); err == nil {
		exit.Started = info.ModTime()
	}
	if kills, err := c.group.OOMKills(); err == nil {
		exit.OOMKilled = kills > 0 && exit.Signal != 0
	}
	exit.DiskExceeded = exceeded
	if c.container.Work != nil {
		// Process 1 of such a container is only the reaper: that it ended well says nothing of the work.
		exit.Code, exit.Signal = 1, 0
		exit.Reason = cmp.Or(exceeded, "the shim of the task was killed, so that nobody saw how its work ended")
	}
	if err := writeJSON(c.dir, exitFile, exit); err != nil {
		return exit, err
	}
	return exit, nil
}

// awaitEnd waits for the end of process 1 and a little longer: its shim is to write down how it ended.
func (c *Client) awaitEnd(ctx context.Context) error {
	if c.pidfd != nil {
		if err := waitPidfd(ctx, c.pidfd); err != nil {
			return err
		}
	}
	return pause(ctx, 100*time.Millisecond)
}

// exitOf translates a wait status as shells do: 128+n for a signal.
func exitOf(status unix.WaitStatus) driver.Exit {
	if status.Signaled() {
		return driver.Exit{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	return driver.Exit{Code: status.ExitStatus()}
}

// waitPidfd waits for a process's end without keeping a thread.
func waitPidfd(ctx context.Context, pidfd *os.File) error {
	fd, err := unix.FcntlInt(pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 3) // own deadline for each waiter
	if err != nil {
		return fmt.Errorf("duplicate pidfd: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // Fd() above made the shared description blocking
		_ = unix.Close(fd)
		return fmt.Errorf("wait for process: %w", err)
	}
	own := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = own.Close() }()
	raw, err := own.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = own.SetReadDeadline(time.Unix(1, 0)) })()
	err = raw.Read(func(fd uintptr) bool {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(polled, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	return nil
}

// pidfdInfo is the kernel's struct pidfd_info, in its first version.
type pidfdInfo struct {
	Mask     uint64
	CgroupID uint64
	IDs      [11]uint32
	ExitCode int32
}

// PIDFD_GET_INFO of linux/pidfd.h: _IOWR(0xFF, 11, struct pidfd_info); the kernel learned PIDFD_INFO_EXIT in 6.15.
const (
	pidfdGetInfo  = 0xC040FF0B
	pidfdInfoExit = 1 << 3
)

// exitOfPidfd asks the kernel how a process ended. It knows once somebody has reaped the process, so ask again a while.
func exitOfPidfd(ctx context.Context, pidfd *os.File) (unix.WaitStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		info := pidfdInfo{Mask: pidfdInfoExit}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, pidfd.Fd(), pidfdGetInfo, uintptr(unsafe.Pointer(&info))) //nolint:gosec // the kernel's interface
		runtime.KeepAlive(&info)
		if errno != 0 && !errors.Is(errno, unix.ESRCH) {
			return 0, fmt.Errorf("ask the kernel for the exit status: %w", errno)
		}
		if errno == 0 && info.Mask&pidfdInfoExit != 0 {
			return unix.WaitStatus(uint32(info.ExitCode)), nil //nolint:gosec // a bit pattern
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return 0, errors.New("the kernel does not tell the exit status")
		}
	}
}

// listen makes sure that the end of process 1 will be heard of, where the kernel allows that.
func (c *Client) listen() {
	if c.pidfd == nil {
		return
	}
	c.listening.Do(func() {
		if exits, err := listenExit(c.init.PID); err == nil {
			c.exits = exits
		}
	})
}

// exitHeard returns the exit that the listener heard; without one the error is cause.
func (c *Client) exitHeard(ctx context.Context, cause error) (unix.WaitStatus, error) {
	if c.exits == nil {
		return 0, cause
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		if status, settled := c.exits.ended(); settled {
			return status, nil
		}
		if pause(ctx, quiet/4) != nil {
			return 0, cause
		}
	}
}

// signalMain signals the task's main processes without the shim: process 1, or everything but the reaper.
func (c *Client) signalMain(sig unix.Signal) error {
	if !c.init.alive() || c.pidfd == nil {
		return ErrNotRunning
	}
	c.listen()
	if c.container.Work != nil {
		return c.group.Signal(sig, c.init.PID)
	}
	if err := unix.PidfdSendSignal(int(c.pidfd.Fd()), sig, nil, 0); err != nil {
		return fmt.Errorf("signal process 1 of the container: %w", err)
	}
	return nil
}

func (c *Client) stopWithoutShim(ctx context.Context, sig unix.Signal, timeout time.Duration) error {
	c.listen()
	if err := c.signalMain(sig); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if c.pidfd != nil && timeout > 0 {
		grace, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := waitPidfd(grace, c.pidfd); err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	deadline, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	return c.group.Kill(deadline)
}
