package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interfaces. Commands of quotactl_fd are the X ones, which ext4 answers as well as xfs; units there are
// blocks of 512 bytes.
const (
	getStateV = 0x5808 // Q_XGETQSTATV
	getQuota  = 0x5803 // Q_XGETQUOTA
	setLimits = 0x5804 // Q_XSETQLIM
	projects  = 2      // PRJQUOTA

	stateVersion     = 1
	projectsCounted  = 1 << 4 // FS_QUOTA_PDQ_ACCT
	projectsEnforced = 1 << 5 // FS_QUOTA_PDQ_ENFD, which needs the mount option

	quotaVersion = 1
	ofProject    = 2 // FS_PROJ_QUOTA
	fieldLimits  = 1<<0 | 1<<1 | 1<<2 | 1<<3
	quotaBlock   = 512

	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritFlag   = 0x200      // FS_XFLAG_PROJINHERIT
)

// state is struct fs_quota_statv.
type state struct {
	Version          int8
	_                uint8
	Flags            uint16
	InCore           uint32
	User, Group, Prj [24]byte
	Times            [3]int32
	Warnings         [4]uint16
	_                int32
	_                [7]uint64
}

// record is struct fs_disk_quota.
type record struct {
	Version                  int8
	Flags                    int8
	Fields                   uint16
	ID                       uint32
	HardBlocks, SoftBlocks   uint64
	HardInodes, SoftInodes   uint64
	Blocks, Inodes           uint64
	InodeTimer, BlockTimer   int32
	InodeWarns, BlockWarns   uint16
	_                        [4]int8
	RTHard, RTSoft, RTBlocks uint64
	RTTimer                  int32
	RTWarns                  uint16
	_                        int16
	_                        [8]byte
}

// attributes is struct fsxattr.
type attributes struct {
	Flags, ExtentSize, Extents, Project, CoWExtentSize uint32
	_                                                  [8]byte
}

// ErrNoProjects says that a file system has no project quotas, and why.
var ErrNoProjects = errors.New("no project quota")

// ErrTooMuch says that a task has more than its limit before it has begun.
var ErrTooMuch = errors.New("disk quota exceeded")

func quotactl(dir *os.File, command, id uint32, into unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, dir.Fd(), uintptr(command<<8|projects), uintptr(id), uintptr(into), 0, 0)
	runtime.KeepAlive(dir)
	if errno != 0 {
		return errno
	}
	return nil
}

func ioctl(file *os.File, request uintptr, a *attributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(unsafe.Pointer(a))) //nolint:gosec // the kernel's interface
	runtime.KeepAlive(file)
	if errno != 0 {
		return errno
	}
	return nil
}

// Detect tries whether the file system of a directory holds projects to limits, by means of an id that nobody uses. The
// error is ErrNoProjects when it does not.
func Detect(dir string, id uint32) error {
	handle, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoProjects, err)
	}
	defer func() { _ = handle.Close() }()
	s := state{Version: stateVersion}
	err = quotactl(handle, getStateV, 0, unsafe.Pointer(&s)) //nolint:gosec // the kernel's interface
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the file system of %s has no quotas, or was not mounted with the option prjquota", ErrNoProjects, dir)
	case err != nil:
		return fmt.Errorf("%w: ask the file system of %s: %w", ErrNoProjects, dir, err)
	case s.Flags&projectsCounted == 0 || s.Flags&projectsEnforced == 0:
		return fmt.Errorf("%w: the file system of %s was not mounted with the option prjquota", ErrNoProjects, dir)
	}
	if err := try(dir, id); err != nil {
		return fmt.Errorf("%w: trying it in %s: %w", ErrNoProjects, dir, err)
	}
	return nil
}

// try does what is done for each task.
func try(dir string, id uint32) error {
	trial, err := os.MkdirTemp(dir, "quota-trial-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(trial) }()
	want := Amount{Bytes: 1 << 20, Inodes: 10}
	if err := errors.Join(Assign(trial, id), SetLimit(trial, id, want)); err != nil {
		return err
	}
	_, limit, err := Usage(trial, id)
	if err == nil && limit != want {
		err = fmt.Errorf("it forgets limits: %+v became %+v", want, limit)
	}
	return errors.Join(err, SetLimit(trial, id, Amount{}))
}

// Assign makes a directory part of a project, and with it all that will be made below it. What is there already is not.
func Assign(dir string, id uint32) error {
	handle, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("set project of %s: %w", dir, err)
	}
	defer func() { _ = handle.Close() }()
	return assign(handle, id, inheritFlag)
}

// assign sets a file's project and adds flags to its own; ext4 refuses on a file what is for directories.
func assign(file *os.File, id, flags uint32) error {
	var a attributes
	if err := ioctl(file, getAttributes, &a); err != nil {
		return fmt.Errorf("read project of %s: %w", file.Name(), err)
	}
	a.Project = id
	a.Flags |= flags
	if err := ioctl(file, setAttributes, &a); err != nil {
		return fmt.Errorf("set project of %s: %w", file.Name(), err)
	}
	return nil
}

// Of returns the project of a directory, 0 for none.
func Of(dir string) uint32 {
	handle, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0
	}
	defer func() { _ = handle.Close() }()
	var a attributes
	if ioctl(handle, getAttributes, &a) != nil {
		return 0
	}
	return a.Project
}

// Adopt makes a directory part of a project with all that is in it, provided that it is on the file system of another
// directory; otherwise nothing is done. A tree that exceeds the limit is ErrTooMuch.
func Adopt(ctx context.Context, dir *os.File, id uint32, limit Amount, beside string) error {
	var one, two unix.Stat_t
	if err := errors.Join(unix.Fstat(int(dir.Fd()), &one), unix.Stat(beside, &two)); err != nil {
		return fmt.Errorf("set project of %s: %w", dir.Name(), err)
	}
	if one.Dev != two.Dev || inProject(dir, id, dir) {
		return nil
	}
	if err := assign(dir, id, inheritFlag); err != nil {
		return err
	}
	var failed error
	used, err := visit(ctx, dir, limit, func(parent int, name string, kind uint32) {
		if kind != unix.S_IFREG && kind != unix.S_IFDIR {
			return // cannot be opened without consequences, and takes up next to nothing
		}
		fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return // it has gone meanwhile
		}
		file, flags := os.NewFile(uintptr(fd), name), uint32(0)
		if kind == unix.S_IFDIR {
			flags = inheritFlag
		}
		if err := assign(file, id, flags); failed == nil {
			failed = err
		}
		_ = file.Close()
	})
	switch {
	case err != nil:
		return err
	case errors.Is(failed, unix.EDQUOT), errors.Is(failed, unix.ENOSPC):
		return fmt.Errorf("%w: %s holds too much already: %w", ErrTooMuch, dir.Name(), failed)
	case failed != nil:
		return failed
	}
	if used.Exceeds(limit) {
		return fmt.Errorf("%w: %s holds %s already", ErrTooMuch, dir.Name(), used.Of(limit))
	}
	return nil
}

// SetLimit limits a project on the file system of a directory. A zero Amount takes the limit away.
func SetLimit(dir string, id uint32, limit Amount) error {
	handle, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("limit project %d: %w", id, err)
	}
	defer func() { _ = handle.Close() }()
	blocks := uint64(max(limit.Bytes, 0)) / quotaBlock //nolint:gosec // not negative
	if limit.Bytes > 0 {
		blocks = max(blocks, 1) // no blocks would be no limit
	}
	inodes := uint64(max(limit.Inodes, 0)) //nolint:gosec // not negative
	r := record{
		Version: quotaVersion, Flags: ofProject, Fields: fieldLimits, ID: id,
		HardBlocks: blocks, HardInodes: inodes,
	}
	if err := quotactl(handle, setLimits, id, unsafe.Pointer(&r)); err != nil { //nolint:gosec // the kernel's interface
		return fmt.Errorf("limit project %d on the file system of %s: %w", id, dir, err)
	}
	return nil
}

// Usage returns what a project uses, and its limit, on the file system of a directory. One that nobody heard of uses
// nothing.
func Usage(dir string, id uint32) (used, limit Amount, err error) {
	handle, err := os.Open(dir)
	if err != nil {
		return used, limit, fmt.Errorf("read use of project %d: %w", id, err)
	}
	defer func() { _ = handle.Close() }()
	return usage(handle, id)
}

func usage(dir *os.File, id uint32) (used, limit Amount, err error) {
	var r record
	err = quotactl(dir, getQuota, id, unsafe.Pointer(&r)) //nolint:gosec // the kernel's interface
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return used, limit, nil
	}
	if err != nil {
		return used, limit, fmt.Errorf("read use of project %d on the file system of %s: %w", id, dir.Name(), err)
	}
	return amount(r.Blocks, r.Inodes), amount(r.HardBlocks, r.HardInodes), nil
}

func amount(blocks, inodes uint64) Amount {
	return Amount{Bytes: int64(blocks * quotaBlock), Inodes: int64(inodes)} //nolint:gosec // no disk is that large
}
