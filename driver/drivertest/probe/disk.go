package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func fill(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	file, err := os.Create(args[0])
	if err != nil {
		return err
	}
	if err := errors.Join(pour(file, args[1]), file.Close()); err != nil {
		return err
	}
	return echo([]string{"filled", args[1]})
}

// pour writes so many MiB.
func pour(file *os.File, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for range n {
		if _, err := file.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func litter(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	for n := range count {
		if err := unix.Mknod(filepath.Join(args[0], strconv.Itoa(n)), unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
	}
	return echo([]string{"littered", args[1]})
}

func hidden(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	file, err := os.Create(args[0])
	if err != nil {
		return err
	}
	if err := errors.Join(os.Remove(args[0]), pour(file, args[1]), echo([]string{"hidden"})); err != nil {
		return err
	}
	<-time.After(time.Hour)
	return file.Close()
}

// project sets a file's project id: FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR.
func project(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	id, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var attributes [7]uint32 // flags, extent size, extents, project, …
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), 0x801c581f, uintptr(unsafe.Pointer(&attributes))); errno != 0 {
		return errno
	}
	attributes[3] = uint32(id)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), 0x401c5820, uintptr(unsafe.Pointer(&attributes))); errno != 0 {
		return errno
	}
	return nil
}
