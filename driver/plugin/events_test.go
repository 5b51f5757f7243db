package plugin

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver/task"
)

func next(t *testing.T, ch <-chan *drivers.TaskEvent) string {
	t.Helper()
	select {
	case e, open := <-ch:
		if !open {
			return "(closed)"
		}
		return e.Message
	case <-time.After(5 * time.Second):
		t.Fatal("no event came")
		return ""
	}
}

func TestEvents(t *testing.T) {
	var e events
	e.send(task.Event{Message: "before anybody listened"})
	ctx, cancel := context.WithCancel(t.Context())
	first := e.listen(ctx)
	if got := next(t, first); got != "before anybody listened" {
		t.Errorf("the first listener got %q", got)
	}
	second := e.listen(t.Context())
	go e.send(task.Event{Message: "to all"})
	for _, ch := range []<-chan *drivers.TaskEvent{first, second} {
		if got := next(t, ch); got != "to all" {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	if got := next(t, first); got != "(closed)" {
		t.Errorf("a listener that went away got %q", got)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.send(task.Event{Message: "after one went"})
	}()
	if got := next(t, second); got != "after one went" {
		t.Errorf("got %q", got)
	}
	<-done
}
