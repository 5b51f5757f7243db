package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/cgroup"
)

// Client speaks for one task. Its methods may be called from many goroutines.
type Client struct {
	dir       string
	container driver.Container
	init      identity
	pidfd     *os.File // of process 1; nil when it had ended before we came
	group     cgroup.Group

	seen sync.Mutex // guards events.seen

	listening sync.Once
	exits     *exitListener // nil while the shim lives, and where the kernel does not let us
}

// Connect returns a client for the task of a state directory. The shim may be dead and the task ended; the error is
// ErrGone only when there is no such task, or when the host was restarted while it ran.
func Connect(dir string) (*Client, error) {
	container, err := readContainer(dir)
	if err != nil {
		return nil, err
	}
	group, err := cgroup.At(containerCgroup(container))
	if err != nil {
		return nil, err
	}
	if err := lost(dir); err != nil {
		return nil, err
	}
	c := &Client{dir: dir, container: container, group: group}
	if err := readJSON(dir, initFile, &c.init); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if c.init.PID > 0 {
		c.pidfd = openPidfd(c.init)
	}
	if c.pidfd != nil && !c.shimAlive() {
		c.listen()
	}
	return c, nil
}

// Close lets go of what the client holds; the task goes on.
func (c *Client) Close() error {
	c.listening.Do(func() {}) // not from now on
	var err error
	if c.exits != nil {
		err = c.exits.Close()
	}
	if c.pidfd != nil {
		err = errors.Join(err, c.pidfd.Close())
	}
	return err
}

// InitPID returns the host's number of the container's process 1, or 0 when it never ran.
func (c *Client) InitPID() int { return c.init.PID }

// Running reports whether the container's process 1 runs.
func (c *Client) Running() bool { return c.init.alive() }

// Wait returns how the task ended, once it has. Many may wait, also after the end.
func (c *Client) Wait(ctx context.Context) (driver.Exit, error) {
	for {
		exit, ok, err := readExit(c.dir)
		if err != nil || ok {
			return exit, err
		}
		var answer reply
		err = c.call(ctx, request{Op: opWait}, &answer)
		switch {
		case ctx.Err() != nil:
			return driver.Exit{}, ctx.Err()
		case err == nil && answer.Exit != nil:
			return *answer.Exit, nil
		}
		if exit, ok, err := readExit(c.dir); err != nil || ok {
			return exit, err
		}
		if !c.shimAlive() {
			return c.waitWithoutShim(ctx)
		}
		if errors.Is(err, errSkew) {
			err = c.awaitEnd(ctx)
		} else {
			err = pause(ctx, 50*time.Millisecond)
		}
		if err != nil {
			return driver.Exit{}, err
		}
	}
}

// Stop ends the task: signal to its main processes, SIGKILL to all after the timeout. It returns once all are gone.
func (c *Client) Stop(ctx context.Context, signal string, timeout time.Duration) error {
	sig, err := parseSignal(signal)
	if err != nil { // an image's STOPSIGNAL may be any text, and its task must end all the same
		signal, sig = "SIGTERM", unix.SIGTERM
	}
	err = c.call(ctx, request{Op: opStop, Signal: signal, Timeout: timeout}, nil)
	if err == nil || errors.Is(err, ErrNotRunning) || ctx.Err() != nil {
		return errOrNil(err, ErrNotRunning)
	}
	if _, ended, _ := readExit(c.dir); ended { // the shim left before it answered
		return nil
	}
	if c.shimAlive() && !errors.Is(err, errSkew) {
		return fmt.Errorf("stop: %w", err)
	}
	return c.stopWithoutShim(ctx, sig, timeout)
}

// Signal sends a signal, named as "SIGHUP", "HUP" or "1", to the task's main processes.
func (c *Client) Signal(ctx context.Context, name string) error {
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	err = c.call(ctx, request{Op: opSignal, Signal: name}, nil)
	if err == nil || c.shimAlive() && !errors.Is(err, errSkew) || errors.Is(err, ErrNotRunning) {
		return err
	}
	return c.signalMain(sig)
}

// Meter reads what the container uses, from the host's files: the shim is not asked. Who asked for it closes it.
func (c *Client) Meter() (*cgroup.Meter, error) {
	m, err := c.group.Meter()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return m, err
}

// Events gives the task's events that no client has been given before, and goes on until the task's end or the
// context's. The channel is closed then.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	out := make(chan Event)
	go func() {
		defer close(out)
		last, err := c.streamEvents(ctx, c.seenEvents(), out)
		if err != nil && ctx.Err() == nil {
			c.replayEvents(ctx, last, out) // the shim is gone, or went while we listened
		}
	}()
	return out, nil
}

func (c *Client) streamEvents(ctx context.Context, last int, out chan<- Event) (int, error) {
	socket, err := c.dial(ctx)
	if err != nil {
		return last, err
	}
	defer closeWith(ctx, socket)()
	if err := socket.sendJSON(request{Op: opEvents, After: last}); err != nil {
		return last, err
	}
	for {
		var r reply
		if err := socket.receiveJSON(&r); err != nil {
			return last, err
		}
		if r.Event != nil {
			last = c.deliver(ctx, *r.Event, last, out)
		}
		if r.Done {
			return last, r.err()
		}
	}
}

func (c *Client) replayEvents(ctx context.Context, last int, out chan<- Event) {
	file, err := os.Open(filepath.Join(c.dir, eventsFile))
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxFrame)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			last = c.deliver(ctx, e, last, out)
		}
	}
}

func (c *Client) deliver(ctx context.Context, e Event, last int, out chan<- Event) int {
	if e.Seq <= last {
		return last
	}
	select {
	case <-ctx.Done():
		return last
	case out <- e:
	}
	c.seen.Lock()
	defer c.seen.Unlock()
	// A lost note only means that an event is given twice.
	_ = os.WriteFile(filepath.Join(c.dir, seenFile), []byte(strconv.Itoa(e.Seq)), 0o600)
	return e.Seq
}

func (c *Client) seenEvents() int {
	c.seen.Lock()
	defer c.seen.Unlock()
	text, err := os.ReadFile(filepath.Join(c.dir, seenFile))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return n
}

// call sends one request and waits for its answer.
func (c *Client) call(ctx context.Context, r request, answer *reply) error {
	socket, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer closeWith(ctx, socket)()
	if err := socket.sendJSON(r); err != nil {
		return fmt.Errorf("%s: %w", r.Op, err)
	}
	var got reply
	if err := socket.receiveJSON(&got); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w", r.Op, err)
	}
	if answer != nil {
		*answer = got
	}
	return got.err()
}

// dial connects to the shim and checks that it is one whose protocol we speak.
func (c *Client) dial(ctx context.Context) (*conn, error) {
	var raw net.Conn
	err := viaDir(c.dir, socketFile, func(path string) (err error) {
		var d net.Dialer
		raw, err = d.DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoShim, err)
	}
	socket := &conn{Conn: raw}
	if err := greet(socket); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return socket, nil
}

func greet(socket *conn) error {
	if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return fmt.Errorf("greet shim: %w", err)
	}
	var h hello
	if err := socket.receiveJSON(&h); err != nil {
		return fmt.Errorf("%w: %w", ErrNoShim, err)
	}
	if err := h.agreed(); err != nil {
		return err
	}
	return socket.SetReadDeadline(time.Time{})
}

func (c *Client) shimAlive() bool {
	var id identity
	return readJSON(c.dir, shimFile, &id) == nil && id.alive()
}

// closeWith closes a connection when the context ends or the returned function is called.
func closeWith(ctx context.Context, closer io.Closer) func() {
	stop := context.AfterFunc(ctx, func() { _ = closer.Close() })
	return func() {
		stop()
		_ = closer.Close()
	}
}

// IsSignal says whether a name is one that Signal and Stop know.
func IsSignal(name string) bool {
	_, err := parseSignal(name)
	return err == nil
}

// parseSignal reads a signal's name, with or without SIG, or its number. Empty is SIGTERM.
func parseSignal(name string) (unix.Signal, error) {
	if name == "" {
		return unix.SIGTERM, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), nil
	}
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	if sig := unix.SignalNum(full); sig != 0 {
		return sig, nil
	}
	if sig := realtimeSignal(full); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q: want a name such as SIGTERM or a number", name)
}

// realtimeSignal returns the signal of a name such as SIGRTMIN+3, which asks systemd to halt, or 0.
func realtimeSignal(name string) unix.Signal {
	const first, last = 34, 64 // as C libraries count them
	for prefix, from := range map[string]int{"SIGRTMIN": first, "SIGRTMAX": last} {
		rest, found := strings.CutPrefix(name, prefix)
		if !found {
			continue
		}
		offset, err := strconv.Atoi(rest)
		if rest == "" {
			offset, err = 0, nil
		}
		if n := from + offset; err == nil && n >= first && n <= last {
			return unix.Signal(n)
		}
	}
	return 0
}

func errOrNil(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}

// pause waits a while, or for the context's end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
