package keeper

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// tending is what a process 1 of ours tells of the process that it runs, on a pipe: cmd/drover-shim/tend.go writes it.
// A nil one is that of a container whose process 1 is the task's own.
type tending struct{ ours, theirs *os.File }

// word is what is told at a time: what it is, and a number.
type word struct{ Kind, Value int32 }

// Kinds of words.
const (
	wordBegun  = 1 // the program runs
	wordFailed = 2 // it could not be run, for the reason of an errno
	wordEnded  = 3 // it ended with a wait status
)

func newTending() (*tending, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return &tending{ours: read, theirs: write}, nil
}

// handOver lets go of the end that process 1 has.
func (t *tending) handOver() { _ = t.theirs.Close() }

// begun waits until the program runs, or tells why it does not.
func (t *tending) begun() error {
	if t == nil {
		return nil
	}
	told, err := t.next()
	if err != nil {
		return nil //nolint:nilerr // a process 1 that is no more has a status that tells
	}
	switch told.Kind {
	case wordBegun:
		return nil
	case wordFailed:
		return unix.Errno(told.Value) //nolint:gosec // an error number
	}
	return fmt.Errorf("process 1 told %d, which is nothing", told.Kind)
}

// status is the program's, when process 1 told it, and else process 1's own. Both have the same exit code; but what ended
// by a signal only the program's tells.
func (t *tending) status(own unix.WaitStatus) unix.WaitStatus {
	if t == nil {
		return own
	}
	if told, err := t.next(); err == nil && told.Kind == wordEnded {
		return unix.WaitStatus(told.Value)
	}
	return own
}

func (t *tending) next() (word, error) {
	var raw [8]byte
	if _, err := io.ReadFull(t.ours, raw[:]); err != nil {
		return word{}, err
	}
	var w word
	_, err := binary.Decode(raw[:], binary.NativeEndian, &w)
	return w, err
}

func (t *tending) close() {
	if t != nil {
		_ = t.ours.Close()
	}
}

// silence is a standard input that never ends and never says anything: a pipe whose reader is its only writer, so that
// it stays open whoever else dies.
func silence() (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer func() { _ = read.Close() }()
	defer func() { _ = write.Close() }()
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(read.Fd())), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe both ways: %w", err)
	}
	return os.NewFile(uintptr(fd), "silence"), nil
}
