package unpack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the confined child: it expects the job as its only argument, the destination as file descriptor 3, and
// writes its report to standard output. It returns the process's exit status.
func Main(args []string, stdin io.Reader) int {
	stats, err := child(args, stdin)
	raw, encodeErr := json.Marshal(report(stats, err))
	_, writeErr := os.Stdout.Write(raw)
	if err != nil || encodeErr != nil || writeErr != nil {
		return 1
	}
	return 0
}

func child(args []string, stdin io.Reader) (Stats, error) {
	if len(args) != 1 {
		return Stats{}, errors.New("the helper takes one argument, the job; it is run by the driver only")
	}
	var job Job
	if err := json.Unmarshal([]byte(args[0]), &job); err != nil {
		return Stats{}, fmt.Errorf("decode job: %w", err)
	}
	job = job.withDefaults()
	if err := enter(); err != nil {
		return Stats{}, err
	}
	root, err := os.Open("/")
	if err != nil {
		return Stats{}, fmt.Errorf("open destination: %w", err)
	}
	return extract(job, root, stdin)
}

// enter makes the destination this process's root and drops what it does not need.
func enter() error {
	syscall.CloseOnExec(destFD)
	unix.Umask(0)
	for _, limit := range []struct {
		resource int
		value    uint64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, 256}, {unix.RLIMIT_DATA, 1 << 30}} {
		if err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.value, Max: limit.value}); err != nil {
			return fmt.Errorf("lower resource limit %d: %w", limit.resource, err)
		}
	}
	if err := pivot(); err != nil {
		// The destination is in another mount namespace, or the host's root cannot be left: both allow a chroot.
		if err := errors.Join(unix.Fchdir(destFD), unix.Chroot(".")); err != nil {
			return fmt.Errorf("enter destination: %w", err)
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter destination: %w", err)
	}
	return unix.Close(destFD)
}

// pivot makes the destination, a mount that is attached nowhere yet, the only mount of this namespace.
func pivot() error {
	err := unix.MoveMount(destFD, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach destination: %w", err)
	}
	if err := unix.Fchdir(destFD); err != nil {
		return fmt.Errorf("enter destination: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}
