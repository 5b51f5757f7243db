// Package notify tells clients that their Tasks have ended, at least once.
//
// A Notifier watches a bridge.Tasks. For each Completed Task that came with a callback it claims the result, sends it,
// and deletes the Task when the client has answered. It keeps nothing on disk: a Task is listed until it is deleted,
// so a Notifier that starts again finds what its predecessor left, and a claim that is older than half a minute counts
// as given up. Hence a client may be told twice, and never not at all while it can be reached within Patience.
//
// A Task without a callback is left for whoever polls it, and deleted two minutes after its end, as Diego does.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

const (
	// Patience is how long a result is offered to a client that cannot be reached.
	Patience = 24 * time.Hour
	// StaleClaim is the age at which a claim is taken for that of a bridge that died.
	StaleClaim = 30 * time.Second
	// Unasked is how long an ended Task stays that nobody wants to be told about.
	Unasked = 2 * time.Minute

	workers = 16
	// restPerWork is how long a Notifier rests for each moment that it spent listing: a busy platform hints all the
	// time, and to list is to read the secrets of every Task.
	restPerWork  = 4
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
	sendTimeout  = 30 * time.Second
)

// Send tells one client about one Task. Answered says that the client has spoken and that the Task may be forgotten.
type Send func(ctx context.Context, task *models.Task) (answered bool, err error)

// Notifier sends the ends of Tasks. Make it with New.
type Notifier struct {
	tasks bridge.Tasks
	send  Send
	log   *slog.Logger

	known   map[string]*entry
	queue   []*models.Task
	busy    int
	done    chan outcome
	listing int // failures in a row
	hinted  bool
	rest    time.Time // no hint is followed before
}

// entry is what a Notifier remembers of a Task between two attempts. Losing it costs a repeated call.
type entry struct {
	active   bool // queued or being sent
	claimed  bool
	answered bool
	failures int
	retry    time.Time
	due      time.Time
}

// outcome is the end of one attempt.
type outcome struct {
	guid     string
	gone     bool // the Task is deleted
	lost     bool // another holds the Task's result
	claimed  bool
	answered bool
}

// New returns a Notifier; Run starts it.
func New(tasks bridge.Tasks, send Send, log *slog.Logger) *Notifier {
	return &Notifier{tasks: tasks, send: send, log: log, known: map[string]*entry{}, done: make(chan outcome)}
}

// Run notifies until ctx ends, and returns when the calls then under way have been answered or have timed out.
func (n *Notifier) Run(ctx context.Context) {
	hints := n.tasks.Completions(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case _, open := <-hints:
			if !open {
				hints = nil
			}
			n.hinted = open
		case <-timer.C:
			n.list(ctx)
		case o := <-n.done:
			n.settle(o)
		}
		if n.hinted && !n.rest.After(time.Now()) {
			n.list(ctx)
		}
		n.start(ctx)
		timer.Reset(time.Until(n.next()))
	}
	for n.busy > 0 {
		n.settle(<-n.done)
	}
}

// list decides anew what is due.
func (n *Notifier) list(ctx context.Context) {
	start := time.Now()
	tasks, err := n.tasks.Tasks(ctx, bridge.TaskFilter{})
	now := time.Now()
	n.hinted, n.rest = false, now.Add(restPerWork*now.Sub(start))
	if err != nil {
		if ctx.Err() == nil {
			n.log.WarnContext(ctx, "list tasks", "error", err)
		}
		n.listing++
		return
	}
	n.listing = 0
	n.drop(tasks)
	for _, task := range tasks {
		if !ended(task) {
			continue
		}
		e := n.known[task.TaskGuid]
		if e == nil {
			e = &entry{}
			n.known[task.TaskGuid] = e
		}
		if e.active {
			continue
		}
		e.due = due(task, e)
		if !e.due.After(now) {
			e.active = true
			n.queue = append(n.queue, task)
		}
	}
}

// drop forgets what was queued but not begun, and every Task that is gone or was desired anew.
func (n *Notifier) drop(tasks []*models.Task) {
	for _, task := range n.queue {
		n.known[task.TaskGuid].active = false
	}
	n.queue = nil
	listed := make(map[string]bool, len(tasks))
	for _, task := range tasks {
		listed[task.TaskGuid] = ended(task)
	}
	for guid, e := range n.known {
		if !listed[guid] && !e.active {
			delete(n.known, guid)
		}
	}
}

func ended(task *models.Task) bool {
	return task.State == models.Task_Completed || task.State == models.Task_Resolving
}

// due says when something is to be done about an ended Task.
func due(task *models.Task, e *entry) time.Time {
	at := e.retry
	if task.CompletionCallbackUrl == "" {
		at = latest(at, time.Unix(0, task.FirstCompletedAt).Add(Unasked))
	}
	if task.State == models.Task_Resolving && !e.claimed {
		at = latest(at, time.Unix(0, task.UpdatedAt).Add(StaleClaim))
	}
	return at
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// start begins as many attempts as there are workers. An attempt outlives ctx, so that a result which was received is
// not sent again after an orderly restart.
func (n *Notifier) start(ctx context.Context) {
	for ctx.Err() == nil && n.busy < workers && len(n.queue) > 0 {
		task := n.queue[0]
		n.queue = n.queue[1:]
		n.busy++
		e := *n.known[task.TaskGuid]
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
			defer cancel()
			n.done <- n.attempt(ctx, task, e)
		}()
	}
}

// next is when to look again: at the earliest due Task, or soon after a listing that failed.
func (n *Notifier) next() time.Time {
	now := time.Now()
	if n.listing > 0 {
		return now.Add(backoff(n.listing))
	}
	at := now.Add(StaleClaim)
	if n.hinted {
		at = n.rest
	}
	for _, e := range n.known {
		if !e.active && e.due.Before(at) {
			at = e.due
		}
	}
	return at
}

// settle takes an attempt's outcome in.
func (n *Notifier) settle(o outcome) {
	n.busy--
	if o.gone {
		delete(n.known, o.guid)
		return
	}
	e := n.known[o.guid]
	if o.lost {
		*e = entry{}
	}
	e.active, e.claimed, e.answered = false, o.claimed, o.answered
	e.failures++
	e.retry = time.Now().Add(backoff(e.failures))
	e.due = e.retry
}

// attempt claims, sends and deletes.
func (n *Notifier) attempt(ctx context.Context, task *models.Task, e entry) outcome {
	o := outcome{guid: task.TaskGuid, claimed: true, answered: e.answered}
	log := n.log.With("guid", task.TaskGuid, "domain", task.Domain)
	if task.State == models.Task_Completed {
		if err := n.tasks.ResolvingTask(ctx, task.TaskGuid); err != nil {
			o.claimed, o.lost = false, isAnothers(err)
			log.WarnContext(ctx, "claim a task's result", "error", err)
			return o
		}
	}
	if !o.answered {
		o.answered = n.tell(ctx, log, task, e.failures)
	}
	if !o.answered {
		return o
	}
	if err := n.forget(ctx, task.TaskGuid); err != nil {
		log.WarnContext(ctx, "delete a task that was told about", "error", err)
		return o
	}
	o.gone = true
	return o
}

// tell reports whether nothing is left to be said about a Task.
func (n *Notifier) tell(ctx context.Context, log *slog.Logger, task *models.Task, failures int) bool {
	if task.CompletionCallbackUrl == "" {
		return true
	}
	age := time.Since(time.Unix(0, task.FirstCompletedAt))
	if failures > 0 && age > Patience {
		log.ErrorContext(ctx, "give up telling about a task; its result is lost", "after", age)
		return true
	}
	start := time.Now()
	answered, err := n.send(ctx, task)
	log = log.With("failed", task.Failed, "took", time.Since(start), "attempt", failures+1)
	switch {
	case err == nil:
		log.InfoContext(ctx, "told about a task")
	case answered:
		log.WarnContext(ctx, "told about a task, which was not welcome", "error", err)
	default:
		log.WarnContext(ctx, "tell about a task; will try again", "error", err)
	}
	return answered
}

// forget deletes a Task, claiming it again when the claim has become stale while the client took its time.
func (n *Notifier) forget(ctx context.Context, guid string) error {
	err := n.tasks.DeleteTask(ctx, guid)
	if is(err, models.Error_InvalidStateTransition) {
		if err = n.tasks.ResolvingTask(ctx, guid); err == nil {
			err = n.tasks.DeleteTask(ctx, guid)
		}
	}
	if is(err, models.Error_ResourceNotFound) {
		return nil
	}
	return err
}

// isAnothers says that a claim failed because another made it, or even finished.
func isAnothers(err error) bool {
	return is(err, models.Error_InvalidStateTransition) || is(err, models.Error_ResourceNotFound)
}

func is(err error, kind models.Error_Type) bool {
	var known *models.Error
	return errors.As(err, &known) && known.GetType() == kind
}

// backoff doubles with each failure, and is spread so that those who failed together do not come back together.
func backoff(failures int) time.Duration {
	full := lastBackoff
	if shift := failures - 1; shift < 5 {
		full = firstBackoff << shift
	}
	return full/2 + rand.N(full/2)
}
