// Package nomad keeps the contract of bridge.Runtime with a Nomad cluster, and nothing but the cluster.
//
//	runtime, err := nomad.New(nomad.Config{Client: client})
//	go runtime.Run(ctx)   // watches; methods wait for its first complete look
//
// What must be remembered is in Nomad Variables, one for each LRP, Task and domain:
//
//	drover/lrps/<process guid>    what changes without a restart: instances, routes, annotation, metric tags
//	drover/tasks/<guid>           how far a Task is, and its result until somebody has taken it
//	drover/domains/<name>         until when a domain is fresh
//	nomad/jobs/<job>…             run info, for the job's own workload identity (package translate)
//
// They are written with check-and-set, so that any number of bridges may serve the same cluster. Run keeps an index of
// them, and of the allocations, by blocking lists; a method that finds the index out of touch with Nomad fails instead
// of answering from memory.
//
// A record is claimed first, then the run info written, then the job registered, then the record marked as ready. A
// record that is not ready is not listed, and asking again completes it; one that nobody completes is removed.
//
// Where Nomad has ACLs, the client's token needs no more than this, in the namespace of Options, and node read:
//
//	capabilities = ["submit-job", "read-job", "list-jobs", "alloc-lifecycle"]
//	variables {
//	  path "drover/*"           { capabilities = ["read", "write", "list", "destroy"] }
//	  path "nomad/jobs/lrp-*"   { capabilities = ["read", "write", "list", "destroy"] }
//	  path "nomad/jobs/task-*"  { capabilities = ["read", "write", "list", "destroy"] }
//	}
package nomad

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"drover/bridge"
	"drover/bridge/translate"
)

// Config says how to keep a Runtime. Only Client is required.
type Config struct {
	// Client of the cluster. Its namespace must be the one of Options.
	Client *api.Client
	// Options of every job.
	Options translate.Options
	// Log is for what goes on behind the methods' backs; default none.
	Log *slog.Logger
	// Now is the clock; default time.Now.
	Now func() time.Time
	// RequestTimeout bounds each request to Nomad; default 8 s, less than Cloud Controller waits.
	RequestTimeout time.Duration
	// PlacementTimeout is how long a Task waits for a place that no node has; default 90 s.
	PlacementTimeout time.Duration
	// StartTimeout is how long a Task may be pending; default 30 min.
	StartTimeout time.Duration
}

// Runtime is a bridge.Runtime. Make it with New.
type Runtime struct {
	client  *api.Client
	options translate.Options
	config  Config
	log     *slog.Logger
	// owner tells this process's half-done records from those of others.
	owner string

	records *records
	allocs  *allocations
	nodes   *nodes
	guids   keyedMutex
	hints   broadcast
}

var _ bridge.Runtime = (*Runtime)(nil)

// New checks the configuration. It does not talk to Nomad.
func New(config Config) (*Runtime, error) {
	if config.Client == nil {
		return nil, errors.New("nomad runtime: there is no client")
	}
	if err := config.Options.Validate(); err != nil {
		return nil, fmt.Errorf("nomad runtime: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	fill := func(field *time.Duration, value time.Duration) {
		if *field <= 0 {
			*field = value
		}
	}
	fill(&config.RequestTimeout, 8*time.Second)
	fill(&config.PlacementTimeout, 90*time.Second)
	fill(&config.StartTimeout, 30*time.Minute)
	r := &Runtime{
		client:  config.Client,
		options: config.Options.WithDefaults(),
		config:  config,
		log:     config.Log,
		owner:   uuid.NewString(),
		records: newRecords(),
		allocs:  newAllocations(),
	}
	r.nodes = &nodes{runtime: r, addresses: map[string]string{}}
	return r, nil
}

// Run watches Nomad until ctx ends. Call it once.
func (r *Runtime) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.watch(ctx, "variables", &r.records.health, r.listRecords) })
	group.Go(func() error { return r.watch(ctx, "allocations", &r.allocs.health, r.listAllocations) })
	group.Go(func() error { return r.converge(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

const (
	// blockFor is how long a list waits for news; Nomad adds up to a sixteenth.
	blockFor = 30 * time.Second
	// breath is the least time between two lists, so that a busy cluster is not listed for each of its changes.
	// It grows with the length of the list, because each costs Nomad and us as much.
	breath        = 50 * time.Millisecond
	breathPerItem = 50 * time.Microsecond
	// grace is how long the index is answered from while lists fail: a leader election takes about that long, and a
	// Cloud Controller does not try again what was answered by 503.
	grace = 3 * time.Second
	// retryAfter is how soon a failed list is tried again.
	retryAfter = 500 * time.Millisecond
)

// seen is what a list saw: Nomad's index, and how many items.
type seen struct {
	index uint64
	size  int
}

// watch calls list again and again, with the index that it returned.
func (r *Runtime) watch(ctx context.Context, what string, health *health, list func(ctx context.Context, index uint64) (seen, error)) error {
	var index uint64
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		next, err := r.listOnce(ctx, index, list)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if health.set(err) {
			r.log.Warn("watching nomad changed", "what", what, "error", err)
		}
		if err != nil {
			index = 0
			timer.Reset(retryAfter)
			continue
		}
		index = max(next.index, 1)
		timer.Reset(breath + time.Duration(next.size)*breathPerItem)
	}
}

// listOnce bounds a list, for a Nomad that went away without a word.
func (r *Runtime) listOnce(ctx context.Context, index uint64, list func(ctx context.Context, index uint64) (seen, error)) (seen, error) {
	ctx, cancel := context.WithTimeout(ctx, blockFor+blockFor/16+r.config.RequestTimeout)
	defer cancel()
	next, err := list(ctx, index)
	if err == nil && next.index < index {
		return seen{}, fmt.Errorf("nomad's index went back from %d to %d: it is another cluster, or a restored one", index, next.index)
	}
	return next, err
}

// health is whether an index is in touch with Nomad.
type health struct {
	mu    sync.Mutex
	ready chan struct{}
	once  bool
	err   error
	// lost is when lists began to fail.
	lost time.Time
}

// set notes the result of a list and says whether it is news.
func (h *health) set(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := (h.err == nil) != (err == nil)
	if changed && err != nil {
		h.lost = time.Now()
	}
	h.err = err
	if err == nil && !h.once {
		h.once = true
		close(h.ready)
	}
	return changed
}

// wait returns when the index has been complete once and is in touch.
func (h *health) wait(ctx context.Context) error {
	select {
	case <-h.ready:
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		return fmt.Errorf("nomad has not been listed yet: %w", errors.Join(h.err, ctx.Err()))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil && time.Since(h.lost) >= grace {
		return fmt.Errorf("out of touch with nomad: %w", h.err)
	}
	return nil
}

// begin bounds a method's work and waits for the index.
func (r *Runtime) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.RequestTimeout)
	if err := errors.Join(r.records.health.wait(ctx), r.allocs.health.wait(ctx)); err != nil {
		cancel()
		return nil, nil, err
	}
	return ctx, cancel, nil
}

func (r *Runtime) query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Region: r.options.Region, Namespace: r.options.Namespace}).WithContext(ctx)
}

func (r *Runtime) write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{Region: r.options.Region, Namespace: r.options.Namespace}).WithContext(ctx)
}

// keyedMutex is one mutex for each key in use.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	mu    sync.Mutex
	users int
}

// lock returns the function that unlocks.
func (k *keyedMutex) lock(key string) func() {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyLock{}
	}
	lock := k.locks[key]
	if lock == nil {
		lock = &keyLock{}
		k.locks[key] = lock
	}
	lock.users++
	k.mu.Unlock()
	lock.mu.Lock()
	return func() {
		lock.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if lock.users--; lock.users == 0 {
			delete(k.locks, key)
		}
	}
}

// broadcast wakes all who listen.
type broadcast struct {
	mu        sync.Mutex
	listeners map[chan struct{}]struct{}
}

func (b *broadcast) listen() (chan struct{}, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[chan struct{}]struct{}{}
	}
	listener := make(chan struct{}, 1)
	b.listeners[listener] = struct{}{}
	return listener, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, listener)
	}
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for listener := range b.listeners {
		select {
		case listener <- struct{}{}:
		default:
		}
	}
}
