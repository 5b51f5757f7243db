package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// flood prints as many bytes to standard output, in lines of 64, then to standard error that it did.
func flood(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	line := strings.Repeat("x", 63) + "\n"
	for ; count > 0; count -= len(line) {
		if _, err := io.WriteString(os.Stdout, line); err != nil {
			return err
		}
	}
	return echoErr([]string{"flooded"})
}

// stdin tells whether standard input has ended, is open and silent, or is a terminal.
func stdin([]string) error {
	if _, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		return echo([]string{"terminal"})
	}
	fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 200)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return echo([]string{"silent"})
		}
		return echo([]string{"ended"})
	}
}
