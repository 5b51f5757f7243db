package keeper

import (
	"context"
	"encoding/base64"
	"strconv"
	"sync"
	"time"

	"drover/driver"
	"drover/driver/shim"
)

// events are the steps of the task's life, in memory and on disk.
type events struct {
	dir    shim.Dir
	mu     sync.Mutex
	list   []shim.Event
	closed bool
	more   chan struct{} // closed and replaced when there is more to give
}

func (e *events) init(dir shim.Dir) {
	e.dir = dir
	e.more = make(chan struct{})
}

func (e *events) add(event shim.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	event.Seq = len(e.list) + 1
	event.Time = time.Now()
	e.list = append(e.list, event)
	close(e.more)
	e.more = make(chan struct{})
	return e.dir.Append(event)
}

func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	close(e.more)
	e.more = make(chan struct{})
}

// after returns the events behind the n-th, a channel that tells of more, and whether there can be more.
func (e *events) after(n int) ([]shim.Event, <-chan struct{}, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.list[min(max(n, 0), len(e.list)):], e.more, !e.closed
}

// Events implements shim.Handler.
func (k *keeper) Events(ctx context.Context, after int, give func(shim.Event) error) error {
	for {
		list, more, open := k.events.after(after)
		for _, event := range list {
			if err := give(event); err != nil {
				return err
			}
			after = event.Seq
		}
		if !open {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// emit adds an event, with its phase and the time since the container began as annotations.
func (k *keeper) emit(event shim.Event) {
	if event.Annotations == nil {
		event.Annotations = map[string]string{}
	}
	event.Annotations[driver.AnnotationPhase] = event.Phase
	event.Annotations[driver.AnnotationMillis] = strconv.FormatInt(time.Since(k.started).Milliseconds(), 10)
	if err := k.events.add(event); err != nil {
		k.log.Warn("cannot write down an event", "phase", event.Phase, "error", err)
	}
}

func startedEvent(mounting, creating time.Duration) shim.Event {
	return shim.Event{Phase: driver.PhaseStarted, Annotations: map[string]string{
		driver.AnnotationMountMillis:  strconv.FormatInt(mounting.Milliseconds(), 10),
		driver.AnnotationCreateMillis: strconv.FormatInt(creating.Milliseconds(), 10),
	}}
}

func endedEvent(exit driver.Exit) shim.Event {
	event := shim.Event{Phase: driver.PhaseEnded, Message: exit.Reason, Annotations: map[string]string{}}
	if exit.Reason != "" {
		event.Annotations[driver.AnnotationReason] = exit.Reason
	}
	if exit.Result != "" {
		event.Annotations[driver.AnnotationResult] = base64.StdEncoding.EncodeToString([]byte(exit.Result))
	}
	return event
}
