package check

import (
	"context"
	"fmt"
	"time"
)

// Kind names a watch in messages.
type Kind string

// The watches that last until a process has become unhealthy.
const (
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// UntilHealthy asks every interval until the answer is good. After timeout, unless that is zero, it gives up and says
// how often it asked.
func (c Check) UntilHealthy(ctx context.Context, address string, interval, timeout time.Duration) error {
	var deadline <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		deadline = timer.C
	}
	for attempts := 1; ; attempts++ {
		err := c.Run(ctx, address)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-deadline:
			return &Error{CodeOf(err), fmt.Sprintf("Timed out after %s (%d attempts) waiting for startup check to succeed: %v", timeout, attempts, err)}
		case <-time.After(interval):
		}
	}
}

// WhileHealthy asks every interval and returns with the first bad answer, or nil when ctx ends.
func (c Check) WhileHealthy(ctx context.Context, address string, interval time.Duration, kind Kind) error {
	for {
		// An answer that was cut short because nobody wants to know any more says nothing.
		if err := c.Run(ctx, address); err != nil && ctx.Err() == nil {
			return &Error{CodeOf(err), fmt.Sprintf("%s check unsuccessful: %v", kind, err)}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}
