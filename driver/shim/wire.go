package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"drover/driver"
)

// Kinds of frames.
const (
	frameJSON   = 'J'
	frameStdin  = '0' // an empty one closes stdin
	frameStdout = '1'
	frameStderr = '2'
)

// maxFrame bounds what a peer can make us allocate.
const maxFrame = 4 << 20

// hello is the server's first frame.
type hello struct {
	Protocol int    `json:"protocol"`
	Oldest   int    `json:"oldest,omitempty"`
	Version  string `json:"version,omitempty"` // for people
	ID       string `json:"id"`
	PID      int    `json:"pid"`
}

// agreed says why two sides cannot go on; see "Upgrades" in the package's comment.
func (h hello) agreed() error {
	oldest := h.Oldest
	if oldest == 0 {
		oldest = h.Protocol
	}
	if h.Protocol >= oldestProtocol && ProtocolVersion >= oldest {
		return nil
	}
	return fmt.Errorf("%w: it is %s with protocol %d to %d, and this plugin understands %d to %d", errSkew, h.Version, oldest, h.Protocol, oldestProtocol, ProtocolVersion)
}

// Operations.
const (
	opWait   = "wait"
	opStop   = "stop"
	opSignal = "signal"
	opExec   = "exec"
	opEvents = "events"
)

// request is a client's first frame; Resize comes in later ones of an exec.
type request struct {
	Op      string         `json:"op"`
	Signal  string         `json:"signal,omitempty"`
	Timeout time.Duration  `json:"timeout,omitempty"`
	After   int            `json:"after,omitempty"`
	Process driver.Process `json:"process,omitzero"`
	TTY     bool           `json:"tty,omitempty"`
	Size    [2]uint16      `json:"size,omitzero"`
}

// reply answers a request: any number of events, then one that is Done.
type reply struct {
	Done  bool         `json:"done,omitempty"`
	Error string       `json:"error,omitempty"`
	Code  string       `json:"code,omitempty"`
	Exit  *driver.Exit `json:"exit,omitempty"`
	Event *Event       `json:"event,omitempty"`
}

// codeNotRunning marks a reply's error as ErrNotRunning.
const codeNotRunning = "not_running"

func failure(err error) reply {
	r := reply{Done: true, Error: err.Error()}
	if errors.Is(err, ErrNotRunning) {
		r.Code = codeNotRunning
	}
	return r
}

func (r reply) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Code == codeNotRunning:
		return ErrNotRunning
	default:
		return errors.New(r.Error)
	}
}

// conn frames a socket. Writes may come from several goroutines, reads from one.
type conn struct {
	net.Conn
	write sync.Mutex
}

func (c *conn) send(kind byte, body []byte) error {
	frame := make([]byte, 5, 5+len(body))
	frame[0] = kind
	binary.BigEndian.PutUint32(frame[1:], uint32(len(body))) //nolint:gosec // bodies are at most maxFrame
	c.write.Lock()
	defer c.write.Unlock()
	_, err := c.Write(append(frame, body...))
	return err
}

func (c *conn) sendJSON(value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return c.send(frameJSON, raw)
}

func (c *conn) receive() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is larger than %d", size, maxFrame)
	}
	body = make([]byte, size)
	_, err = io.ReadFull(c, body)
	return head[0], body, err
}

func (c *conn) receiveJSON(value any) error {
	kind, body, err := c.receive()
	if err != nil {
		return err
	}
	if kind != frameJSON {
		return fmt.Errorf("frame of kind %q where JSON was due", kind)
	}
	return json.Unmarshal(body, value)
}

// frames writes a stream as frames of one kind.
type frames struct {
	conn *conn
	kind byte
}

func (f frames) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), 32<<10)
		if err := f.conn.send(f.kind, rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// viaDir calls use with a path of a directory's file that is short enough for a socket address, however deep the
// directory is.
func viaDir(dir, name string, use func(path string) error) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Close() }()
	return use(filepath.Join("/proc/self/fd", strconv.Itoa(int(handle.Fd())), name))
}
