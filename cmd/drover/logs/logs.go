// Package logs shows what the containers of an LRP or a Task wrote, by asking Nomad for it.
//
// A Reader remembers how far it has read each instance's output. Read prints what is new since the last call, whole
// lines only; Follow reads again and again. Lines look as the cf command prints them, without a time: Nomad keeps none,
// and the time of reading would be a lie.
//
//	[APP/PROC/WEB/0] OUT listening on 8080
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// pause is between two looks when following.
const pause = 300 * time.Millisecond

// Reader reads the output of one Nomad job.
type Reader struct {
	client *api.Client
	job    string
	task   string
	// source names an instance in the output, from its index.
	source func(index int) string
	out    io.Writer
	read   map[stream]*progress
}

// stream is one output of one allocation.
type stream struct {
	alloc string
	kind  string
}

// progress is how far a stream has been read, and its unfinished last line.
type progress struct {
	name   string
	offset int64
	rest   []byte
}

// New returns a Reader of a task in a job, which prints to out.
func New(client *api.Client, job, task string, source func(index int) string, out io.Writer) *Reader {
	return &Reader{client: client, job: job, task: task, source: source, out: out, read: map[stream]*progress{}}
}

// Follow prints what is there and what comes until ctx ends, then once more what is there by then.
func (r *Reader) Follow(ctx context.Context) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if err := r.Read(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			err := r.Read(last)
			r.Flush()
			return err
		}
	}
}

// Read prints what is new. A job that is not there, or has not started, has nothing new.
func (r *Reader) Read(ctx context.Context) error {
	allocs, _, err := r.client.Jobs().Allocations(r.job, true, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("list allocations of %s: %w", r.job, err)
	}
	for i := len(allocs) - 1; i >= 0; i-- { // oldest first
		alloc := allocs[i]
		if state := alloc.TaskStates[r.task]; state == nil || state.StartedAt.IsZero() {
			continue
		}
		for _, kind := range []string{api.FSLogNameStdout, api.FSLogNameStderr} {
			if err := r.readStream(ctx, alloc, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Reader) readStream(ctx context.Context, alloc *api.AllocationListStub, kind string) error {
	key := stream{alloc: alloc.ID, kind: kind}
	seen := r.read[key]
	if seen == nil {
		seen = &progress{name: alloc.Name}
		r.read[key] = seen
	}
	output, err := r.open(ctx, alloc.ID, kind, seen.offset)
	if isNotFound(err) {
		return nil // not written yet, or collected already
	}
	if err != nil {
		return fmt.Errorf("read output of %s: %w", alloc.Name, err)
	}
	defer func() { _ = output.Close() }() // it was read to its end, or its failure is known
	buffer := make([]byte, 32<<10)
	for {
		n, err := output.Read(buffer)
		seen.offset += int64(n)
		seen.rest = r.print(alloc.Name, kind, append(seen.rest, buffer[:n]...))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read output of %s: %w", alloc.Name, err)
		}
	}
}

// open asks for what an allocation has written since offset. It asks by our own connections: Nomad's client has a call
// for logs too, but that makes a connection of its own each time and leaves it open, and Nomad allows a hundred.
func (r *Reader) open(ctx context.Context, alloc, kind string, offset int64) (io.ReadCloser, error) {
	query := (&api.QueryOptions{Params: map[string]string{
		"task": r.task, "type": kind, "origin": api.OriginStart, "offset": strconv.FormatInt(offset, 10),
		"follow": "false", "plain": "true",
	}}).WithContext(ctx)
	return r.client.Raw().Response("/v1/client/fs/logs/"+alloc, query)
}

func isNotFound(err error) bool {
	var unexpected api.UnexpectedResponseError
	return errors.As(err, &unexpected) && unexpected.StatusCode() == http.StatusNotFound
}

// print prints whole lines and returns what is left.
func (r *Reader) print(name, kind string, text []byte) []byte {
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			return text
		}
		r.line(name, kind, line)
		text = rest
	}
}

func (r *Reader) line(name, kind string, line []byte) {
	channel := "OUT"
	if kind == api.FSLogNameStderr {
		channel = "ERR"
	}
	_, _ = fmt.Fprintf(r.out, "[%s] %s %s\n", r.source(index(name)), channel, printable(line))
}

// Flush prints unfinished lines too; call it when there is nothing to finish them.
func (r *Reader) Flush() {
	for key, seen := range r.read {
		if len(seen.rest) > 0 {
			r.line(seen.name, key.kind, seen.rest)
			seen.rest = nil
		}
	}
}

// index is the number at the end of an allocation's name, as in "job.group[2]"; 0 when there is none.
func index(name string) int {
	var n int
	if at := strings.LastIndex(name, "["); at >= 0 {
		if _, err := fmt.Sscanf(name[at:], "[%d]", &n); err != nil {
			return 0
		}
	}
	return n
}

// printable takes from a line what would confuse a terminal.
func printable(line []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\x1b' || r >= ' ' && r != 0x7f {
			return r
		}
		return -1
	}, string(line))
}
