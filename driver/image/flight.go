package image

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// meter counts a transfer's bytes; many may look while one counts.
type meter struct {
	done, total atomic.Int64
	// last is when the last byte came, in nanoseconds since 1970.
	last atomic.Int64
}

func (m *meter) add(n int) {
	m.done.Add(int64(n))
	if n > 0 {
		m.last.Store(time.Now().UnixNano())
	}
}

func (m *meter) progress() Progress { return Progress{Done: m.done.Load(), Total: m.total.Load()} }

// gauge adds the meters of an image's layers up, whose total was known beforehand.
type gauge struct {
	layers int
	total  int64
	done   atomic.Int64 // layers

	mu     sync.Mutex
	meters []*meter
}

func (g *gauge) add(m *meter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.meters = append(g.meters, m)
}

func (g *gauge) progress() Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := Progress{Total: g.total, Layers: g.layers, LayersDone: int(g.done.Load())}
	for _, m := range g.meters {
		sum.Done += m.done.Load()
	}
	return sum
}

// last is when the last byte came, or when it all began.
func (g *gauge) last(began time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := began
	for _, m := range g.meters {
		if at := time.Unix(0, m.last.Load()); at.After(last) {
			last = at
		}
	}
	return last
}

// flights joins those who want the same thing at the same time. Unlike a call that belongs to the one who came first,
// a flight goes on as long as anybody waits for it, and is cancelled by the last who leaves.
type flights struct {
	mu   sync.Mutex
	open map[string]*flight
}

type flight struct {
	who     string // in whose name
	done    chan struct{}
	err     error
	meter   meter
	cancel  context.CancelFunc
	waiters int
}

// join starts work under a key, or finds it under way. The caller must call wait on it once.
func (f *flights) join(ctx context.Context, key, who string, work func(context.Context, *meter) error) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if found, ok := f.open[key]; ok {
		found.waiters++
		return found
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	started := &flight{who: who, done: make(chan struct{}), cancel: cancel, waiters: 1}
	if f.open == nil {
		f.open = map[string]*flight{}
	}
	f.open[key] = started
	go func() {
		defer close(started.done)
		defer cancel()
		started.err = work(ctx, &started.meter)
		f.forget(key, started)
	}()
	return started
}

// wait returns how the work ended, or gives it up when ctx ends first.
func (f *flights) wait(ctx context.Context, key string, joined *flight) error {
	select {
	case <-joined.done:
		return joined.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	joined.waiters--
	last := joined.waiters == 0
	if last && f.open[key] == joined {
		delete(f.open, key) // who comes now starts anew
	}
	f.mu.Unlock()
	if last {
		joined.cancel()
		<-joined.done // so that nothing is left behind when the caller returns
	}
	return context.Cause(ctx)
}

func (f *flights) forget(key string, ended *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[key] == ended {
		delete(f.open, key)
	}
}

// watch tells how far a transfer has come whenever that has changed, until the function that it returns is called,
// which tells it a last time.
func watch(every time.Duration, progress func(Progress), look func() Progress) (stop func()) {
	if progress == nil {
		return func() {}
	}
	var last Progress
	tell := func() {
		if now := look(); now != last {
			last = now
			progress(now)
		}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				tell()
			case <-quit:
				tell()
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}
