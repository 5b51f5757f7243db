package plugin

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver/task"
)

const (
	// handOver bounds how long one listener may keep an event from the others.
	handOver = 2 * time.Second
	// maxPending bounds the events that wait for the first listener.
	maxPending = 256
)

// events hands task events to whoever listens. An agent begins to listen a moment after it starts the plugin and may
// recover tasks before that: events wait for the first listener.
type events struct {
	mu        sync.Mutex
	listeners map[chan *drivers.TaskEvent]context.Context // the life of each
	pending   []*drivers.TaskEvent
}

// listen returns a channel that is closed when the context ends.
func (e *events) listen(ctx context.Context) <-chan *drivers.TaskEvent {
	ch := make(chan *drivers.TaskEvent)
	out := make(chan *drivers.TaskEvent)
	e.mu.Lock()
	if e.listeners == nil {
		e.listeners = map[chan *drivers.TaskEvent]context.Context{}
	}
	e.listeners[ch] = ctx
	waiting := e.pending
	e.pending = nil
	e.mu.Unlock()
	go func() {
		defer close(out)
		defer e.forget(ch)
		for _, event := range waiting {
			if !give(ctx, out, event) {
				return
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case event := <-ch:
				if !give(ctx, out, event) {
					return
				}
			}
		}
	}()
	return out
}

func give(ctx context.Context, out chan<- *drivers.TaskEvent, event *drivers.TaskEvent) bool {
	select {
	case <-ctx.Done():
		return false
	case out <- event:
		return true
	}
}

func (e *events) forget(ch chan *drivers.TaskEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.listeners, ch)
}

// send hands an event to all listeners, or keeps it for the first.
func (e *events) send(t task.Event) {
	event := &drivers.TaskEvent{
		TaskID: t.TaskID, AllocID: t.AllocID, TaskName: t.TaskName, Timestamp: t.Time, Message: t.Message, Annotations: t.Annotations,
	}
	e.mu.Lock()
	listeners := make(map[chan *drivers.TaskEvent]context.Context, len(e.listeners))
	for ch, ctx := range e.listeners {
		listeners[ch] = ctx
	}
	if len(listeners) == 0 && len(e.pending) < maxPending {
		e.pending = append(e.pending, event)
	}
	e.mu.Unlock()
	for ch, ctx := range listeners {
		timer := time.NewTimer(handOver)
		select {
		case ch <- event:
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
