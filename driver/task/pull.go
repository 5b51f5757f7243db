package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"drover/driver/image"
)

// Temporary reports whether trying the same start again later may help.
func Temporary(err error) bool {
	var t temporaryError
	return errors.As(err, &t)
}

// temporaryError marks an error that has nothing to do with what was asked for.
type temporaryError struct{ error }

func (e temporaryError) Unwrap() error { return e.error }

var (
	errPullTimeout = errors.New("took longer than the plugin option image_pull_timeout allows")
	errAllocGone   = errors.New("the allocation's directory is gone")
)

// watchEvery is how often a long fetch looks whether the allocation is still there.
const watchEvery = 5 * time.Second

// pullContext bounds a fetch by the operator's timeout, and ends it when the allocation's directory vanishes: Nomad has
// no other way to say that nobody waits any more.
func (m *Manager) pullContext(parent context.Context, allocDir string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, m.node.PullTimeout, errPullTimeout)
	go func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if _, err := os.Stat(allocDir); errors.Is(err, os.ErrNotExist) {
					cancel(errAllocGone)
					return
				}
			}
		}
	}()
	return ctx, func() {
		cancelTimeout()
		cancel(nil)
	}
}

// pullError says what could not be fetched and why, and marks what may be better next time.
func (m *Manager) pullError(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errPullTimeout) {
			return temporaryError{fmt.Errorf("%s: %w (%s)", what, cause, m.node.PullTimeout)}
		}
		return fmt.Errorf("%s: %w", what, cause)
	}
	if image.IsTemporary(err) {
		return temporaryError{err}
	}
	return err
}

// Progress is told at most this often, and only once a fetch has taken so long.
const tellEvery = 10 * time.Second

// progress returns a function that tells how a fetch goes on, now and then.
func (s *start) progress(what string) func(image.Progress) {
	var mu sync.Mutex
	last := time.Now()
	return func(p image.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < tellEvery {
			return
		}
		last = time.Now()
		s.event(what+": "+describeProgress(p), nil)
	}
}

// describeProgress says how far a transfer has come.
func describeProgress(p image.Progress) string {
	const mb = 1e6
	if p.Total <= 0 {
		return fmt.Sprintf("%.1f MB so far", float64(p.Done)/mb)
	}
	return fmt.Sprintf("%d%% of %.1f MB", 100*p.Done/p.Total, float64(p.Total)/mb)
}
