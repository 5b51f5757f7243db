package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// ExecRequest is one more process to be run in a running container. An empty user, directory or environment is that
// of the task's own process.
type ExecRequest struct {
	Process driver.Process
	// TTY gives the process a terminal; its output all comes on Stdout then.
	TTY bool
	// Stdin may be nil; then the process reads nothing. The caller should close it when Exec has returned, since a
	// read that is under way cannot be stopped from here.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize gives the terminal's columns and rows; it may be nil.
	Resize <-chan [2]uint16
}

// Exec runs a process in the container and returns how it ended. When the context ends the process is killed.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (driver.Exit, error) {
	if len(r.Process.Args) == 0 {
		return driver.Exit{}, errors.New("exec: no command is given")
	}
	socket, finish, err := c.execConn(ctx)
	if err != nil {
		return driver.Exit{}, fmt.Errorf("exec: %w", err)
	}
	defer finish()
	stop := closeWith(ctx, socket)
	defer stop()
	first := request{Op: opExec, Process: r.Process, TTY: r.TTY}
	if r.Resize != nil {
		select { // a size that is there already is the one to start with
		case first.Size = <-r.Resize:
		default:
		}
	}
	if err := socket.sendJSON(first); err != nil {
		return driver.Exit{}, fmt.Errorf("exec: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go sendStdin(socket, r.Stdin)
	go sendSizes(socket, r.Resize, done)
	exit, err := receiveOutput(socket, r)
	if ctx.Err() != nil {
		return driver.Exit{}, ctx.Err()
	}
	return exit, err
}

func sendStdin(socket *conn, stdin io.Reader) {
	if stdin != nil {
		_, _ = io.Copy(frames{conn: socket, kind: frameStdin}, stdin)
	}
	_ = socket.send(frameStdin, nil) // the process may have ended: then there is nobody to tell
}

func sendSizes(socket *conn, sizes <-chan [2]uint16, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case size, open := <-sizes:
			if !open || socket.sendJSON(request{Op: opExec, Size: size}) != nil {
				return
			}
		}
	}
}

func receiveOutput(socket *conn, r ExecRequest) (driver.Exit, error) {
	for {
		kind, body, err := socket.receive()
		if err != nil {
			return driver.Exit{}, fmt.Errorf("exec: lost the process: %w", err)
		}
		switch kind {
		case frameStdout:
			err = writeTo(r.Stdout, body)
		case frameStderr:
			err = writeTo(r.Stderr, body)
		case frameJSON:
			var answer reply
			if err := json.Unmarshal(body, &answer); err != nil {
				return driver.Exit{}, fmt.Errorf("exec: %w", err)
			}
			if answer.Done && answer.Exit != nil {
				return *answer.Exit, nil
			}
			err = answer.err()
		}
		if err != nil {
			return driver.Exit{}, fmt.Errorf("exec: %w", err)
		}
	}
}

func writeTo(w io.Writer, body []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(body)
	return err
}

// execConn returns a connection to the shim, or, if that is dead and the container is not, to a helper that serves
// this one exec.
func (c *Client) execConn(ctx context.Context) (*conn, func(), error) {
	socket, err := c.dial(ctx)
	if err == nil {
		return socket, func() {}, nil
	}
	if !c.init.alive() {
		return nil, nil, ErrNotRunning
	}
	var shim identity
	if readErr := readJSON(c.dir, shimFile, &shim); readErr != nil || shim.alive() && !errors.Is(err, errSkew) {
		return nil, nil, err
	}
	return spawnExec(ctx, shim.Exe, c.dir)
}

func spawnExec(ctx context.Context, shimPath, dir string) (*conn, func(), error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "exec"), os.NewFile(uintptr(pair[1]), "exec")
	defer func() { _ = ours.Close() }()
	defer func() { _ = theirs.Close() }()
	cmd := exec.CommandContext(ctx, shimPath, "exec", dir)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start exec helper: %w", err)
	}
	finish := func() { _ = cmd.Wait() }
	raw, err := net.FileConn(ours)
	if err == nil {
		socket := &conn{Conn: raw}
		if err = greet(socket); err == nil {
			return socket, finish, nil
		}
		_ = raw.Close()
	}
	_ = theirs.Close()
	finish()
	return nil, nil, err
}
