package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// maxSetbacks is how often in a row a transfer may be cut with hardly a byte between; a stall counts for several.
	maxSetbacks, stallSetbacks = 5, 3
	// enough is how many bytes between two cuts make a transfer that goes on.
	enough = 64 << 10
	// maxParts bounds the requests that one transfer may take, however well each goes on.
	maxParts = 200
	// maxPause is the longest wait before a cut transfer is asked for again.
	maxPause = 30 * time.Second
)

// part is an answer to a request for what follows an offset: the body, and where it really begins.
type part struct {
	io.ReadCloser
	from int64
}

// resumable reads a transfer that may be cut or stall: it then asks for the rest, so that whoever reads notices
// nothing and nothing is transferred twice (but by servers that cannot begin in the middle). It does not verify.
type resumable struct {
	// open asks for everything from an offset on. An answer may begin earlier.
	open func(ctx context.Context, offset int64) (part, error)
	// size is how much there is, or -1 where only the end tells.
	size    int64
	idle    time.Duration // without a byte, after which a request is given up
	backoff time.Duration
	warn    func(at int64, err error)

	ctx      context.Context //nolint:containedctx // a reader's calls have none, and Close must end them
	cancel   context.CancelFunc
	request  context.Context //nolint:containedctx // of the request under way
	now      part
	stall    *time.Timer
	drop     context.CancelCauseFunc // ends the current request
	failed   error
	at       int64
	mark     int64 // where the last cut was
	setbacks int
	parts    int
}

// begin returns the reader; ctx ends it. First is an answer that has come already, or nil.
func (r resumable) begin(ctx context.Context, first io.ReadCloser) *resumable {
	r.ctx, r.cancel = context.WithCancel(ctx)
	if first != nil {
		r.take(r.ctx, func(error) {}, part{ReadCloser: first})
	}
	return &r
}

// Read returns what comes next. It fails with ErrUnreachable when the transfer does not go on.
func (r *resumable) Read(p []byte) (int, error) {
	for {
		n, err := 0, r.failed
		if r.failed = nil; err == nil {
			n, err = r.read(p)
			r.at += int64(n)
		}
		switch {
		case n > 0:
			r.failed = err // said when these bytes are taken
			return n, nil
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && r.at >= r.size: // where the size is not known, the end is where the server says
			return 0, io.EOF
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		r.end()
		if err := r.pause(err); err != nil {
			return 0, err
		}
	}
}

// Close ends what is under way; it may be called while another goroutine reads.
func (r *resumable) Close() error {
	r.cancel()
	return nil
}

// read reads from the request under way, or begins one. Only time spent waiting counts as idle.
func (r *resumable) read(p []byte) (int, error) {
	if r.now.ReadCloser == nil {
		if err := r.ask(); err != nil {
			return 0, err
		}
	}
	r.stall.Reset(r.idle)
	defer r.stall.Stop()
	for r.now.from < r.at { // the server began too early
		skipped, err := r.now.Read(p[:min(int64(len(p)), r.at-r.now.from)])
		r.now.from += int64(skipped)
		if err != nil {
			return 0, late(r.request, err)
		}
		r.stall.Reset(r.idle)
	}
	n, err := r.now.Read(p)
	r.now.from += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = late(r.request, err)
	}
	return n, err
}

func (r *resumable) ask() error {
	if r.parts++; r.parts > maxParts {
		return fmt.Errorf("%w: it was cut %d times", ErrInvalid, r.parts-1)
	}
	ctx, drop := context.WithCancelCause(r.ctx)
	waiting := time.AfterFunc(r.idle, func() { drop(errStalled) })
	now, err := r.open(ctx, r.at)
	waiting.Stop()
	if err == nil && now.from > r.at {
		err = errors.Join(fmt.Errorf("%w: the server left bytes out", ErrInvalid), now.Close())
	}
	if err != nil {
		drop(err)
		return late(ctx, err)
	}
	r.take(ctx, drop, now)
	return nil
}

// take begins to read an answer, which is closed when its context ends.
func (r *resumable) take(ctx context.Context, drop context.CancelCauseFunc, now part) {
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, func() { _ = now.Close() })
	r.now, r.request = now, ctx
	r.drop = func(cause error) { cancel(cause); drop(cause) }
	r.stall = time.AfterFunc(r.idle, func() { cancel(errStalled) })
	r.stall.Stop()
}

// end gives the request under way up.
func (r *resumable) end() {
	if r.now.ReadCloser != nil {
		r.stall.Stop()
		r.drop(context.Canceled)
		r.now = part{}
	}
}

// pause waits before the next request, or returns the error when there is to be none.
func (r *resumable) pause(err error) error {
	if r.ctx.Err() != nil || !temporary(err) {
		return err
	}
	if r.at-r.mark >= enough {
		r.setbacks = 0
	}
	r.mark = r.at
	r.setbacks++
	if errors.Is(err, errStalled) {
		r.setbacks += stallSetbacks - 1
	}
	if r.setbacks > maxSetbacks {
		return err
	}
	r.warn(r.at, err)
	select {
	case <-r.ctx.Done():
		return err
	case <-time.After(min(r.backoff<<r.setbacks, maxPause)):
		return nil
	}
}
