package task

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrFull says that the file system of the state directory has no room for one more task.
var ErrFull = errors.New("the file system of state_dir is full")

// Fewer bytes or inodes than these are no room for a task's own files.
const (
	roomBytes  = 1 << 20
	roomInodes = 64
)

// explainFull names a full file system as the cause of a failed start, where it is: a shim can only say so in words.
// What has failed for want of room may succeed later, or on another node.
func (m *Manager) explainFull(err error) error {
	var stat unix.Statfs_t
	if Temporary(err) || unix.Statfs(m.node.StateDir, &stat) != nil {
		return err
	}
	// Some file systems, such as btrfs, have no number of inodes.
	full := stat.Bavail*uint64(stat.Bsize) < roomBytes || stat.Files > 0 && stat.Ffree < roomInodes //nolint:gosec // sizes are positive
	if !full && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return temporaryError{fmt.Errorf("%w: make room in %s, or lower the plugin option disk.default: %w", ErrFull, m.node.StateDir, err)}
}
