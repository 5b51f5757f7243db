package nomad

import (
	"context"
	"errors"
	"fmt"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge/translate"
)

const (
	// convergeEvery is how often records are compared with jobs.
	convergeEvery = 5 * time.Second
	// convergePerRecord makes that rarer where there are many.
	convergePerRecord = 5 * time.Millisecond
	// settled is how old a record must be before its job is missed.
	settled = 30 * time.Second
	// abandonedAfter is when a record that never became ready is removed.
	abandonedAfter = 10 * time.Minute
)

// converge repairs, now and then, what no call will: records whose job is gone, Tasks that nobody can run, half-done
// requests that nobody repeated. Each pass works on complete lists or not at all.
func (r *Runtime) converge(ctx context.Context) error {
	if err := errors.Join(r.records.health.wait(ctx), r.allocs.health.wait(ctx)); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	timer := time.NewTimer(convergeEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		count, err := r.convergeOnce(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("cannot compare records with jobs, will try again", "error", err)
		}
		timer.Reset(convergeEvery + time.Duration(count)*convergePerRecord)
	}
}

// convergeOnce returns how many records it has looked at.
func (r *Runtime) convergeOnce(ctx context.Context) (int, error) {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	r.completeTasks(ctx)
	records := append(r.records.list(lrpsPath), r.records.list(tasksPath)...)
	if len(records) == 0 {
		return 0, nil
	}
	jobs, err := r.jobs(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, e := range records {
		errs = append(errs, r.convergeRecord(ctx, e, jobs))
	}
	return len(records), errors.Join(errs...)
}

// jobs lists the ids of the jobs that are registered and not stopped.
func (r *Runtime) jobs(ctx context.Context) (map[string]bool, error) {
	list, _, err := r.client.Jobs().List(r.query(ctx))
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	running := make(map[string]bool, len(list))
	for _, job := range list {
		if !job.Stop {
			running[job.ID] = true
		}
	}
	return running, nil
}

func (r *Runtime) convergeRecord(ctx context.Context, e entry, jobs map[string]bool) error {
	record, is := e.record.(headed)
	if !is {
		return nil
	}
	age := r.config.Now().Sub(time.Unix(0, record.head().UpdatedAt))
	switch record := record.(type) {
	case *lrpRecord:
		id := translate.LRPJobID(record.ProcessGUID)
		switch {
		case !record.Ready && age > abandonedAfter:
			r.log.Warn("removing an LRP that was never desired to the end", "process_guid", record.ProcessGUID)
			return r.abandon(ctx, e, id, translate.LRPGroup)
		case record.Ready && age > settled && !jobs[id]:
			r.log.Warn("the job of an LRP is gone, registering it again", "process_guid", record.ProcessGUID)
			return r.restoreJob(ctx, e.path)
		}
	case *taskRecord:
		id := translate.TaskJobID(record.GUID)
		switch {
		case !record.Ready && age > abandonedAfter:
			return r.abandon(ctx, e, id, translate.TaskGroup)
		case record.Ready && !record.done():
			return r.convergePending(ctx, e, record, jobs[id])
		case record.done() && jobs[id] && hasLive(r.allocs.of(id)) && age > settled:
			return r.stopTask(ctx, record.GUID)
		case record.done() && !jobs[id] && age > settled:
			return r.convergeRemoved(ctx, e, record)
		}
	}
	return nil
}

// convergeRemoved finishes the deletion of a Task that was interrupted after its run info was gone. Such a Task is not
// listed, so nobody else will.
func (r *Runtime) convergeRemoved(ctx context.Context, e entry, record *taskRecord) error {
	info, err := r.readSecrets(ctx, translate.TaskJobID(record.GUID), translate.TaskGroup, record.Chunks)
	switch {
	case errors.Is(err, errDamaged):
		return nil // It is there; what it says does not matter.
	case err != nil || info != nil:
		return err
	}
	defer r.guids.lock(e.path)()
	return r.finishRemoval(ctx, e)
}

// abandon forgets a record unless it has changed.
func (r *Runtime) abandon(ctx context.Context, e entry, jobID, group string) error {
	defer r.guids.lock(e.path)()
	if known, ok := r.records.get(e.path); !ok || known.modifyIndex != e.modifyIndex {
		return nil
	}
	return r.forget(ctx, e.path, jobID, group)
}

// restoreJob registers the job of an LRP that somebody else has removed.
func (r *Runtime) restoreJob(ctx context.Context, path string) error {
	defer r.guids.lock(path)()
	known, ok := r.records.get(path)
	record, is := known.record.(*lrpRecord)
	if !ok || !is || !record.Ready {
		return nil
	}
	lrp, err := r.wholeLRP(ctx, record)
	if err != nil {
		return err
	}
	if lrp == nil {
		return r.finishRemoval(ctx, known)
	}
	work, err := translate.LRP(lrp, r.options)
	if err != nil {
		return fmt.Errorf("translate LRP %s: %w", record.ProcessGUID, err)
	}
	for _, secret := range work.Secrets {
		if err := r.writeSecret(ctx, secret); err != nil {
			return err
		}
	}
	if _, _, err = r.client.Jobs().Register(work.Job, r.write(ctx)); err != nil {
		return fmt.Errorf("register job of LRP %s: %w", record.ProcessGUID, err)
	}
	return nil
}

// convergePending ends Tasks that will never run.
func (r *Runtime) convergePending(ctx context.Context, e entry, record *taskRecord, hasJob bool) error {
	id := translate.TaskJobID(record.GUID)
	age := r.config.Now().Sub(time.Unix(0, record.CreatedAt))
	state := translate.TaskOf(r.allocs.of(id), e.createIndex, record.WantsResult)
	failed := func(reason string) error {
		if err := r.finish(ctx, record.GUID, translate.TaskState{Failed: true, Reason: reason}); err != nil {
			return err
		}
		return r.stopTask(ctx, record.GUID)
	}
	switch {
	case state.State == models.Task_Running && !hasJob && age > settled, state.State == models.Task_Pending && !hasJob && age > settled:
		return failed("cell disappeared before completion")
	case state.State != models.Task_Pending:
		return nil
	case age > r.config.StartTimeout:
		return failed("not started within time limit")
	case age > r.config.PlacementTimeout && len(r.allocs.of(id)) == 0:
		reason, err := r.placement(ctx, id)
		if err != nil || reason == "" {
			return err
		}
		return failed(reason)
	}
	return nil
}

func (r *Runtime) placement(ctx context.Context, jobID string) (string, error) {
	reasons, err := r.blocked(ctx)
	if err != nil {
		return "", err
	}
	return translate.Placement(reasons[jobID]), nil
}
