// Package shim is the per-task process that keeps a container while the plugin comes and goes: its files on disk, its
// protocol, its client and its server.
//
// # For the plugin
//
// Start writes a task's wish to its state directory, spawns `drover-shim run <dir>` and returns when the container
// runs. Connect finds a task again after the plugin was restarted. Both return a Client, whose methods work whether
// the shim lives or not:
//
//   - Wait tells how the task ended, from the shim, from exit.json, or (the shim having been killed) from the kernel
//     through a pidfd that the client has held since it connected (before Linux 6.15: through the process connector,
//     which the client listens to once it misses the shim). That contact was lost is never an exit: where the kernel
//     did not tell, the error is ErrExitUnknown.
//   - Stop and Signal need the shim only to know which processes are the task's main ones.
//   - Meter reads what the container uses from the host's files.
//   - Exec runs one more process, by the shim or, when that is gone, by a helper process of its own.
//   - Destroy needs the directory only.
//
// # The state directory
//
// Everything in it is readable by root alone, since it holds the environment.
//
//	container.json  the driver.Container
//	shim.json       the shim's process identity and executable
//	init.json       the identity of the container's process 1, as the host numbers it
//	shim.sock       the server's socket
//	shim.log        what the shim had to say
//	exit.json       the driver.Exit; complete or absent
//	events.jsonl    the events so far; events.seen is how many of them a client has been given
//	mounts/         what the allocation's directories were when the task was started (in the shim's namespace only)
//	etc/            hosts, resolv.conf and hostname, bound into the container
//	runc/           libcontainer's state
//	disk/ rootfs/   the root file system's writable layer and mount point (mounted in the shim's namespace only)
//
// # The protocol
//
// A frame is a kind (1 byte), a length (4 bytes, big endian) and that many bytes. The server begins with a Hello. A
// connection carries one request, as JSON, and its answers; exec adds frames of stdin, stdout and stderr.
//
// # Upgrades
//
// Plugin and shim are replaced under running tasks, whose shims stay what they are: a plugin meets older shims, and after
// a downgrade newer ones. In Hello a shim says which protocol it speaks and which is the oldest that it still understands;
// a plugin has the same two numbers for itself (ProtocolVersion, oldestProtocol). They agree when each one's protocol is
// not older than the other's oldest. Shims that do not say are of protocol 1.
//
//	protocol  release  change
//	1         0.1      the first
//
// The files of the state directory, the requests and the answers only ever get more fields, so that the number changes
// only for what an older side would get wrong. Where the two do not agree the task goes on and is not lost: the plugin does
// what it does for a task whose shim was killed (it signals and stops through the cgroup, and executes through a helper),
// and the shim still writes exit.json, which is how the plugin hears of the end.
package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drover/driver"
	"drover/driver/cgroup"
)

// ProtocolVersion is the protocol that this package speaks, oldestProtocol the oldest that it still understands.
const (
	ProtocolVersion = 1
	oldestProtocol  = 1
)

// Errors of this package.
var (
	// ErrGone says that there is no such task: its state directory is missing or holds no container.json.
	ErrGone = errors.New("no such task")
	// ErrExitUnknown says that a task has ended and that nobody can tell how: its shim was killed, and nobody
	// listened when the kernel told.
	ErrExitUnknown = errors.New("exit status unknown")
	// ErrNotRunning says that the task's container has ended.
	ErrNotRunning = errors.New("the container is not running")
	// ErrNoShim says that the task's shim no longer runs.
	ErrNoShim = errors.New("the task's shim does not run")
	// errSkew says that the shim runs, and that it and this plugin do not understand each other.
	errSkew = errors.New("the task's shim speaks another protocol")
)

// Names of files in a state directory.
const (
	containerFile = "container.json"
	shimFile      = "shim.json"
	initFile      = "init.json"
	socketFile    = "shim.sock"
	logFile       = "shim.log"
	exitFile      = "exit.json"
	eventsFile    = "events.jsonl"
	seenFile      = "events.seen"
	runcDir       = "runc"
	etcDir        = "etc"
	diskDir       = "disk"
)

// Usage is what a container has used.
type Usage = cgroup.Usage

// Meter reads it.
type Meter = cgroup.Meter

// Event is one step in a task's life. Its phases are driver.PhaseStarted, PhaseHealthy and PhaseEnded.
type Event struct {
	// Seq counts from 1.
	Seq         int               `json:"seq"`
	Phase       string            `json:"phase"`
	Time        time.Time         `json:"time"`
	Message     string            `json:"message,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// identity names a process so that neither a reused pid nor a reboot makes it another one.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
	Exe   string `json:"exe,omitempty"`
}

// identify reads the identity of a running process.
func identify(pid int) (identity, error) {
	start, err := startTime(pid)
	if err != nil {
		return identity{}, err
	}
	boot, err := bootID()
	if err != nil {
		return identity{}, err
	}
	return identity{PID: pid, Start: start, Boot: boot}, nil
}

// alive reports whether the process still runs (a zombie does not).
func (id identity) alive() bool {
	if id.PID <= 1 {
		return false
	}
	boot, err := bootID()
	if err != nil || boot != id.Boot {
		return false
	}
	start, err := startTime(id.PID)
	return err == nil && start == id.Start
}

func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// startTime returns when a process was started, in clock ticks since boot. A dead process has none.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, ErrNotRunning)
	}
	return parseStart(string(text))
}

// parseStart reads the state (field 3) and the start time (field 22) of /proc/<pid>/stat; the name, field 2, is in
// brackets and may hold anything.
func parseStart(stat string) (uint64, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 20 {
		return 0, errors.New("process status has too few fields")
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process is dead: %w", ErrNotRunning)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// writeJSON replaces a file of the state directory so that it is whole or absent.
func writeJSON(dir, name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	temp, err := os.CreateTemp(dir, name+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(raw)
	durable := name == exitFile // the rest means nothing after a reboot
	if durable {
		err = errors.Join(err, temp.Sync())
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), filepath.Join(dir, name))
	}
	if err == nil && durable {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func syncDir(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}

func readJSON(dir, name string, value any) error {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// readContainer reads a task's wish; that there is none is ErrGone.
func readContainer(dir string) (driver.Container, error) {
	var c driver.Container
	err := readJSON(dir, containerFile, &c)
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%w: %s has no %s", ErrGone, dir, containerFile)
	}
	return c, err
}

// readExit returns how the task ended; ok is false while it has not.
func readExit(dir string) (exit driver.Exit, ok bool, err error) {
	err = readJSON(dir, exitFile, &exit)
	if errors.Is(err, fs.ErrNotExist) {
		return exit, false, nil
	}
	return exit, err == nil, err
}

// containerCgroup and shimCgroup place a task: the shim has a leaf of its own beside, never above or in, the task's
// group, because a runtime refuses a group that holds processes, and v2 refuses processes in inner groups.
func containerCgroup(c driver.Container) string {
	if c.Cgroup == "" {
		return "/drover/" + c.ID
	}
	return c.Cgroup
}

func shimCgroup(c driver.Container, v2 bool) string {
	switch {
	case c.Cgroup == "":
		return "/drover-shims/" + c.ID
	case v2:
		top := strings.SplitN(strings.Trim(c.Cgroup, "/"), "/", 2)[0]
		return "/" + top + "/drover-shims.slice/" + c.ID
	default:
		return filepath.Join(filepath.Dir(filepath.Clean(c.Cgroup)), "drover-shims", c.ID)
	}
}
