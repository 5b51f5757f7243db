package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func die(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	number := unix.SignalNum(args[0])
	if number == 0 {
		return fmt.Errorf("unknown signal %q", args[0])
	}
	signal.Reset(number)
	if err := unix.Kill(os.Getpid(), number); err != nil {
		return err
	}
	<-time.After(5 * time.Second)
	return errors.New("survived " + args[0])
}

func kill(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SignalNum(args[0]))
}

func seconds(text string) (time.Duration, error) {
	value, err := strconv.ParseFloat(text, 64)
	return time.Duration(value * float64(time.Second)), err
}

func sleep(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	wait, err := seconds(args[0])
	if err != nil {
		return err
	}
	<-time.After(wait)
	return nil
}

func mem(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var kept [][]byte
	for range mib {
		chunk := make([]byte, 1<<20)
		for at := 0; at < len(chunk); at += 4096 {
			chunk[at] = 1
		}
		kept = append(kept, chunk)
	}
	if err := echo([]string{"allocated", strconv.Itoa(len(kept)), "MiB"}); err != nil {
		return err
	}
	return sleep([]string{"3600"})
}

func child(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func fork(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	started := 0
	for ; started < count; started++ {
		if err = child("sleep", "3600").Start(); err != nil {
			break
		}
	}
	if _, perr := fmt.Fprintf(os.Stdout, "started %d of %d\n", started, count); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	return sleep([]string{"3600"})
}

// call makes a system call of numbers; what it changes is this process's affair.
func call(args []string) error {
	var words [7]uintptr
	if len(args) == 0 || len(args) > len(words) {
		return errUsage
	}
	for i, arg := range args {
		value, err := strconv.ParseUint(arg, 0, 64)
		if err != nil {
			return err
		}
		words[i] = uintptr(value)
	}
	if _, _, errno := unix.Syscall6(words[0], words[1], words[2], words[3], words[4], words[5], words[6]); errno != 0 {
		return errno
	}
	return echo([]string{"OK"})
}

func orphan(args []string) error {
	if len(args) == 2 && args[1] == "child" {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		got := <-signals
		return write([]string{args[0], got.String()})
	}
	if len(args) != 1 {
		return errUsage
	}
	cmd := child("orphan", args[0], "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return echo([]string{"orphan", strconv.Itoa(cmd.Process.Pid)})
}

func trap(args []string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	if err := echo([]string{"ready"}); err != nil {
		return err
	}
	got, ok := (<-signals).(syscall.Signal)
	if !ok {
		return errors.New("not a signal")
	}
	if err := echo([]string{"got", unix.SignalName(got)}); err != nil {
		return err
	}
	if len(args) == 1 {
		return sleep(args)
	}
	return nil
}

func sigignore([]string) error {
	signal.Ignore()
	if err := echo([]string{"ready"}); err != nil {
		return err
	}
	return sleep([]string{"3600"})
}

func reap([]string) error {
	children := make(chan os.Signal, 1)
	ends := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Notify(ends, syscall.SIGTERM)
	for {
		select {
		case <-ends:
			return nil
		case <-children:
			for pid := 1; pid > 0; {
				pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}
}

func then(args []string) error {
	for len(args) > 0 {
		if args[0] != "--" {
			return errUsage
		}
		args = args[1:]
		end := slices.Index(args, "--")
		if end < 0 {
			end = len(args)
		}
		cmd := child(args[:end]...)
		cmd.Stdin = os.Stdin
		var failed *exec.ExitError
		if err := cmd.Run(); errors.As(err, &failed) {
			os.Exit(failed.ExitCode())
		} else if err != nil {
			return err
		}
		args = args[end:]
	}
	return nil
}
