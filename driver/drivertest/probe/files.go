package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

var errUsage = errors.New("wrong number of arguments")

func echo(args []string) error {
	_, err := fmt.Fprintln(os.Stdout, strings.Join(args, " "))
	return err
}

func echoErr(args []string) error {
	_, err := fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	return err
}

func env(args []string) error {
	if len(args) > 0 {
		return echo([]string{os.Getenv(args[0])})
	}
	return echo([]string{strings.Join(slices.Sorted(slices.Values(os.Environ())), "\n")})
}

func exit(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

func cat(args []string) error {
	if len(args) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, name := range args {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(raw); err != nil {
			return err
		}
	}
	return nil
}

func write(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	return os.WriteFile(args[0], []byte(args[1]+"\n"), 0o644)
}

func appendTo(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	file, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(args[1] + "\n")
	return errors.Join(err, file.Close())
}

func id([]string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "unknown"
	}
	_, err = fmt.Fprintf(os.Stdout, "uid=%d gid=%d groups=%v dir=%s\n", os.Getuid(), os.Getgid(), groups, dir)
	return err
}

func stat(args []string) error {
	for _, name := range args {
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		sys, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("no stat here")
		}
		if _, err := fmt.Fprintf(os.Stdout, "%v %d %d %s\n", info.Mode(), sys.Uid, sys.Gid, name); err != nil {
			return err
		}
	}
	return nil
}

func rename(args []string) error {
	if len(args) != 2 {
		return errors.New("want the old name and the new one")
	}
	return os.Rename(args[0], args[1])
}

func remove(args []string) error {
	for _, name := range args {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func mkdir(args []string) error {
	if len(args) != 1 {
		return errors.New("want a directory")
	}
	return os.Mkdir(args[0], 0o755)
}

func link(args []string) error {
	if len(args) != 2 {
		return errors.New("want what it leads to, and a name")
	}
	return os.Symlink(args[0], args[1])
}

func ls(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	entries, err := os.ReadDir(args[0])
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := echo([]string{entry.Name()}); err != nil {
			return err
		}
	}
	return nil
}

func readlink(args []string) error {
	for _, name := range args {
		target, err := os.Readlink(name)
		if err == nil {
			err = echo([]string{target})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func status(args []string) error { return line("/proc/self/status", args) }

func limit(args []string) error { return line("/proc/self/limits", args) }

// line prints the first line of a file that begins with the words.
func line(name string, args []string) error {
	prefix := strings.Join(args, " ")
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), prefix) {
			return echo([]string{lines.Text()})
		}
	}
	return fmt.Errorf("%s has no %q: %w", name, prefix, errors.Join(os.ErrNotExist, lines.Err()))
}

func room(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(args[0], &fs); err != nil {
		return err
	}
	return echo([]string{strconv.FormatUint(fs.Blocks*uint64(fs.Bsize), 10)}) //nolint:gosec // positive
}

func stty([]string) error {
	size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return echo([]string{"not a tty"})
	}
	_, err = fmt.Fprintf(os.Stdout, "%d %d\n", size.Col, size.Row)
	return err
}

func chatter(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for n := range count {
		if err := errors.Join(echo([]string{"out", strconv.Itoa(n)}), echoErr([]string{"err", strconv.Itoa(n)})); err != nil {
			return err
		}
	}
	return nil
}
