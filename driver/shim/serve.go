package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// Handler does what clients ask for. Its contexts end when the client goes.
type Handler interface {
	// Wait returns how the task ended, once exit.json is on the disk.
	Wait(ctx context.Context) (driver.Exit, error)
	// Stop ends the task and returns once it has ended. It goes on when the client has gone.
	Stop(ctx context.Context, sig unix.Signal, timeout time.Duration) error
	// Signal signals the main processes.
	Signal(ctx context.Context, sig unix.Signal) error
	// Exec runs a process; when the context ends it is killed.
	Exec(ctx context.Context, r ExecRequest) (driver.Exit, error)
	// Events gives the events behind the after-th, until the task has ended and all are given.
	Events(ctx context.Context, after int, give func(Event) error) error
}

// Listen opens the socket of a state directory. It replaces one that a dead shim left.
func Listen(d Dir) (net.Listener, error) {
	var listener net.Listener
	err := viaDir(string(d), socketFile, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		old := unix.Umask(0o177)
		defer unix.Umask(old)
		unixListener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		unixListener.SetUnlinkOnClose(false) // its name leads through a descriptor that is closed by then
		listener = unixListener
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}

// lastWords is how long clients have, once the listener is closed, to hear their answers.
const lastWords = time.Second

// Serve answers clients until the listener is closed, and a little longer those who wait for an answer.
func Serve(ctx context.Context, listener net.Listener, id string, h Handler, log *slog.Logger) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var clients sync.WaitGroup
	defer func() { waitAtMost(&clients, lastWords) }()
	for {
		raw, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Warn("cannot accept a client", "error", err)
			if pause(ctx, 100*time.Millisecond) != nil {
				return
			}
			continue
		}
		clients.Go(func() {
			if err := ServeConn(ctx, raw, id, h); err != nil {
				log.Warn("a client's request failed", "error", err)
			}
		})
	}
}

func waitAtMost(group *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// ServeConn answers the one request of a connection, and closes it.
func ServeConn(ctx context.Context, raw net.Conn, id string, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { _ = raw.Close() }()
	socket := &conn{Conn: raw}
	if err := socket.sendJSON(hello{Protocol: ProtocolVersion, Oldest: oldestProtocol, Version: driver.Version, ID: id, PID: os.Getpid()}); err != nil {
		return nil // the client only looked whether we live
	}
	var r request
	if err := socket.receiveJSON(&r); err != nil {
		return ignoreGone(err)
	}
	if r.Op == opExec {
		return ignoreGone(serveExec(ctx, socket, r, h))
	}
	go func() { // a client sends nothing more: what ends this read is its going
		_, _, _ = socket.receive()
		cancel()
	}()
	return ignoreGone(socket.sendJSON(answer(ctx, socket, r, h)))
}

func answer(ctx context.Context, socket *conn, r request, h Handler) reply {
	var err error
	switch r.Op {
	case opWait:
		var exit driver.Exit
		if exit, err = h.Wait(ctx); err == nil {
			return reply{Done: true, Exit: &exit}
		}
	case opStop, opSignal:
		var sig unix.Signal
		if sig, err = parseSignal(r.Signal); err != nil {
			break
		}
		if r.Op == opSignal {
			err = h.Signal(ctx, sig)
		} else {
			err = h.Stop(context.WithoutCancel(ctx), sig, r.Timeout)
		}
	case opEvents:
		err = h.Events(ctx, r.After, func(e Event) error { return socket.sendJSON(reply{Event: &e}) })
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		return failure(err)
	}
	return reply{Done: true}
}

func serveExec(ctx context.Context, socket *conn, r request, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdin, feed := io.Pipe()
	sizes := make(chan [2]uint16, 4)
	if r.Size != [2]uint16{} {
		sizes <- r.Size
	}
	go func() {
		defer cancel() // the client has gone
		err := receiveInput(ctx, socket, feed, sizes)
		feed.CloseWithError(err)
	}()
	exit, err := h.Exec(ctx, ExecRequest{
		Process: r.Process,
		TTY:     r.TTY,
		Stdin:   stdin,
		Stdout:  frames{conn: socket, kind: frameStdout},
		Stderr:  frames{conn: socket, kind: frameStderr},
		Resize:  sizes,
	})
	_ = stdin.Close()
	if err != nil {
		return socket.sendJSON(failure(err))
	}
	return socket.sendJSON(reply{Done: true, Exit: &exit})
}

func receiveInput(ctx context.Context, socket *conn, feed *io.PipeWriter, sizes chan<- [2]uint16) error {
	for {
		kind, body, err := socket.receive()
		if err != nil {
			return err
		}
		switch {
		case kind == frameStdin && len(body) == 0:
			_ = feed.Close()
		case kind == frameStdin:
			_, _ = feed.Write(body) // fails when the process no longer reads, which is its right
		case kind == frameJSON:
			var r request
			if err := json.Unmarshal(body, &r); err != nil {
				return fmt.Errorf("resize: %w", err)
			}
			select {
			case sizes <- r.Size:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// ignoreGone drops the errors of a client that left.
func ignoreGone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}
