package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// lineWait is how long a line of our own may wait for a full fifo that nobody reads.
const lineWait = 2 * time.Second

// logs are the task's log fifos.
//
// The writing ends are given to the container as they are: not a byte is copied, unless there is a limit or a terminal. We keep a reading end, from which we
// never read, so that the task gets no SIGPIPE while Nomad's log collector is restarted; and the writing ends, so that
// the collector sees no end of file between two processes of the same work. All is closed before exit.json is written.
type logs struct {
	stdout, stderr *os.File
	readers        []*os.File
	lines          *os.File // the log itself, for lines of our own

	patience time.Duration
	budget   *budget // of a task with a limit
	copies   sync.WaitGroup
	sources  []*os.File // what relays copy from
	sinks    []*os.File // and to
	watches  []*watch
}

// openLogs opens the fifos, and gives them to the container's root, so that the container can open /dev/stdout.
func openLogs(c driver.Container) (*logs, error) {
	l := &logs{patience: c.Logging.Patience}
	var err error
	if l.stdout, err = l.open(c.Stdout, c.IDs); err == nil {
		l.stderr, err = l.open(c.Stderr, c.IDs)
	}
	if err == nil {
		l.lines, err = reopen(l.stdout, unix.O_WRONLY)
	}
	switch {
	case err != nil:
	case c.Logging.Limit != nil:
		err = l.throughPipes(*c.Logging.Limit, c.IDs)
	case l.patience > 0:
		l.watch()
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

func (l *logs) open(path string, ids driver.IDRange) (*os.File, error) {
	if path == "" || path == os.DevNull {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	reader, err := openBelow(path)
	if err != nil {
		return nil, err
	}
	l.readers = append(l.readers, reader)
	if err := own(reader, ids); err != nil {
		return nil, err
	}
	return reopen(reader, unix.O_WRONLY) // blocks no more: there is a reader
}

// own gives a file to the container's root, user and group: what has a side that the container does not know, its
// processes cannot give on to their own users, who then could not open /dev/stdout.
func own(file *os.File, ids driver.IDRange) error {
	root, ok := ids.HostID(0)
	if !ok || ids.Size == 0 {
		return nil
	}
	if err := unix.Fchown(int(file.Fd()), int(root), int(root)); err != nil {
		return fmt.Errorf("own %s: %w", file.Name(), err)
	}
	return nil
}

// openBelow opens a fifo for reading, in a way that Go's poller does not know of: it would be woken by every line that a
// task prints, and the task would wait for it. The container can write to the directory that holds its log directory, so its
// last three elements are not to be links.
func openBelow(path string) (*os.File, error) {
	base := filepath.Dir(filepath.Dir(filepath.Dir(path)))
	file, err := openBeneath(base, path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, fmt.Errorf("%s is no fifo", path)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(file.Fd())), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// reopen opens the same file again, with other flags and an open file description of its own. Go's poller is kept out
// of descriptors that block, because their mode is shared with the container.
func reopen(file *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(file.Fd())), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reopen %s: %w", file.Name(), err)
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

// line writes a line of our own into the task's log; when nobody reads, it is dropped after a while.
func (l *logs) line(text string) {
	log, err := reopen(l.lines, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return
	}
	defer func() { _ = log.Close() }()
	_ = log.SetWriteDeadline(time.Now().Add(lineWait))
	_, _ = log.WriteString(text + "\n")
}

func (l *logs) close() {
	l.endRelays()
	for _, w := range l.watches {
		w.end()
	}
	var errs []error
	for _, file := range append(l.readers, l.stdout, l.stderr, l.lines) {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	_ = errors.Join(errs...) // closing twice is no failure
}
