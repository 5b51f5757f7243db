package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watch looks after a log that the task writes into directly. When its collector has died, the fifo fills up and the
// task waits in its next line, for ever; so a log that stays full without a reader is emptied until it has one again.
// A reader that is only slow, or stopped, is left alone: not a byte is taken from it.
type watch struct {
	reader, writer *os.File // of logs
	patience       time.Duration
	stop, done     chan struct{}
}

// watch begins to look after both logs.
func (l *logs) watch() {
	for _, log := range []*os.File{l.stdout, l.stderr} {
		i := slices.IndexFunc(l.readers, func(r *os.File) bool { return r.Name() == log.Name() })
		if i < 0 { // /dev/null is never full
			continue
		}
		w := &watch{reader: l.readers[i], writer: log, patience: l.patience, stop: make(chan struct{}), done: make(chan struct{})}
		l.watches = append(l.watches, w)
		go w.run()
	}
}

func (w *watch) end() {
	close(w.stop)
	<-w.done
}

// run looks once in a while. A log that was full twice, with the same number of bytes, has not been read from.
func (w *watch) run() {
	defer close(w.done)
	tick := time.NewTicker(w.patience)
	defer tick.Stop()
	before := -1
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		now := w.fullWith()
		if now >= 0 && now == before && !hasReader(w.reader) {
			w.drain()
			now = -1
		}
		before = now
	}
}

// fullWith returns how many bytes are in a full log, and -1 of one that takes more.
func (w *watch) fullWith() int {
	if ready(w.writer, unix.POLLOUT, 0) {
		return -1
	}
	n, err := unix.IoctlGetInt(int(w.reader.Fd()), unix.TIOCINQ)
	if err != nil {
		return -1
	}
	return n
}

// drain reads the log and throws it away until somebody opens it.
func (w *watch) drain() {
	reader, err := reopen(w.reader, unix.O_RDONLY|unix.O_NONBLOCK) // before opens are watched
	if err != nil {
		return
	}
	defer func() { _ = reader.Close() }()
	opened, err := watchOpens(w.reader)
	if err != nil {
		return
	}
	defer func() { _ = opened.Close() }()
	if hasReader(w.reader) { // it came while we were getting ready
		return
	}
	var lost int64
	buffer := make([]byte, 64<<10)
	for !w.stopped() && !ready(opened, unix.POLLIN, 0) {
		if !ready(w.reader, unix.POLLIN, time.Second) || ready(opened, unix.POLLIN, 0) {
			continue
		}
		if n, err := unix.Read(int(reader.Fd()), buffer); err == nil {
			lost += int64(n)
		}
	}
	writer, err := reopen(w.writer, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return
	}
	defer func() { _ = writer.Close() }()
	_ = writer.SetWriteDeadline(time.Now().Add(lineWait))
	_, _ = writer.WriteString(lostText(lost))
}

func (w *watch) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// ready waits until a file can be used, at most so long.
func ready(file *os.File, event int16, limit time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(file.Fd()), Events: event}} //nolint:gosec // a descriptor
	n, err := unix.Poll(fds, int(limit.Milliseconds()))
	return err == nil && n > 0 && fds[0].Revents&event != 0
}

// watchOpens returns a file that can be read once somebody has opened another one.
func watchOpens(file *os.File) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	handle := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(int(file.Fd())), unix.IN_OPEN); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", file.Name(), err), handle.Close())
	}
	return handle, nil
}

// hasReader says whether another process has a fifo open for reading. It looks at every process of the host, and is for
// the rare case only.
func hasReader(fifo *os.File) bool {
	var own unix.Stat_t
	if unix.Fstat(int(fifo.Fd()), &own) != nil {
		return true // better a task that waits than a log that is robbed
	}
	name, self := filepath.Base(fifo.Name()), strconv.Itoa(os.Getpid())
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err == nil && p.Name() != self && readsFifo(filepath.Join("/proc", p.Name()), name, own) {
			return true
		}
	}
	return false
}

// readsFifo says whether a process has a fifo open for reading, or may have.
func readsFifo(process, name string, own unix.Stat_t) bool {
	files, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH)
	}
	for _, file := range files {
		// The name first: to look at any other file might hang.
		path := filepath.Join(process, "fd", file.Name())
		if target, err := os.Readlink(path); err != nil || filepath.Base(target) != name {
			continue
		}
		var stat unix.Stat_t
		if unix.Stat(path, &stat) == nil && stat.Dev == own.Dev && stat.Ino == own.Ino && reads(process, file.Name()) {
			return true
		}
	}
	return false
}

// reads says whether a process has opened a file for reading.
func reads(process, fd string) bool {
	text, err := os.ReadFile(filepath.Join(process, "fdinfo", fd))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if octal, found := strings.CutPrefix(line, "flags:"); found {
			flags, err := strconv.ParseUint(strings.TrimSpace(octal), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_WRONLY
		}
	}
	return false
}
