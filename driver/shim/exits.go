package shim

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How kernels before 6.15 tell a process that is not the parent how another one ended: they announce every exit on a
// netlink socket (the process connector), to whoever listens at that time. A filter in the kernel leaves the rest out.

// exitListener hears how one process ends.
type exitListener struct {
	file *os.File

	mu     sync.Mutex
	status unix.WaitStatus
	heard  time.Time
}

// linux/connector.h and linux/cn_proc.h.
const (
	cnProc         = 1 // both the connector's index and its value, and the multicast group
	cnListen       = 1
	cnIgnore       = 2
	procEventExit  = 0x80000000
	offWhat        = 16 + 20 // after the netlink header and the connector's
	offProcess     = offWhat + 20
	offExitCode    = offWhat + 24
	cnMessageBytes = 16 + 20 + 4
)

// quiet is for how long no thread of a process may have ended before the last that did speaks for the process.
const quiet = 100 * time.Millisecond

// listenExit begins to listen. It needs to be root, in the host's first network namespace.
func listenExit(pid int) (*exitListener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("listen for exits: %w", err)
	}
	l := &exitListener{file: os.NewFile(uintptr(fd), "exits")}
	program := exitFilter(uint32(pid)) //nolint:gosec // pids are positive
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}) //nolint:gosec // six instructions
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnProc})
	}
	if err == nil {
		_, err = l.file.Write(cnMessage(cnListen))
	}
	if err != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("listen for exits: %w", err)
	}
	go l.hear()
	return l, nil
}

// exitFilter is a socket filter that lets only exits of a process's threads pass. Filters load words as big endian.
func exitFilter(pid uint32) []unix.SockFilter {
	const load, equal, give = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	word := func(v uint32) uint32 { return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v)) }
	return []unix.SockFilter{
		{Code: load, K: offWhat},
		{Code: equal, K: word(procEventExit), Jf: 3},
		{Code: load, K: offProcess},
		{Code: equal, K: word(pid), Jf: 1},
		{Code: give, K: 1 << 12},
		{Code: give, K: 0},
	}
}

// cnMessage asks the process connector to begin or to cease.
func cnMessage(op uint32) []byte {
	order := binary.NativeEndian
	m := order.AppendUint32(make([]byte, 0, cnMessageBytes), cnMessageBytes)
	m = order.AppendUint16(m, unix.NLMSG_DONE)
	m = append(m, make([]byte, 2+4+4)...) // flags, sequence, port
	m = order.AppendUint32(m, cnProc)
	m = order.AppendUint32(m, cnProc)
	m = append(m, make([]byte, 4+4)...) // sequence, acknowledgement
	m = order.AppendUint16(m, 4)
	m = append(m, 0, 0)
	return order.AppendUint32(m, op)
}

// parseExit reads a wait status from an announcement that the filter let pass.
func parseExit(message []byte) (unix.WaitStatus, bool) {
	if len(message) < offExitCode+4 || binary.NativeEndian.Uint32(message[offWhat:]) != procEventExit {
		return 0, false
	}
	return unix.WaitStatus(binary.NativeEndian.Uint32(message[offExitCode:])), true
}

func (l *exitListener) hear() {
	buffer := make([]byte, 1<<12)
	for {
		n, err := l.file.Read(buffer)
		if err != nil {
			return // closed
		}
		if status, ok := parseExit(buffer[:n]); ok {
			l.mu.Lock()
			l.status, l.heard = status, time.Now()
			l.mu.Unlock()
		}
	}
}

// ended returns what the process's last thread left. A thread that ended before the others says nothing of the
// process, so it is to be asked once the process has ended; settled is false while there may be more to hear.
func (l *exitListener) ended() (status unix.WaitStatus, settled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status, !l.heard.IsZero() && time.Since(l.heard) > quiet
}

// Close ceases to listen, and tells the kernel so, which counts its listeners.
func (l *exitListener) Close() error {
	_, _ = l.file.Write(cnMessage(cnIgnore))
	return l.file.Close()
}
