package nomad

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/uuid"
	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"drover/bridge"
	"drover/bridge/translate"
)

// DesireTask keeps the contract of bridge.Tasks.
func (r *Runtime) DesireTask(ctx context.Context, guid, domain string, task *models.TaskDefinition) error {
	work, err := translate.Task(guid, domain, uuid.NewString(), task, r.options)
	if err != nil {
		return err
	}
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	path := taskPath(guid)
	defer r.guids.lock(path)()
	now := r.config.Now().UnixNano()
	record := &taskRecord{
		header:      header{CreatedAt: now, UpdatedAt: now},
		GUID:        guid,
		Domain:      domain,
		WantsResult: task.ResultFile != "",
	}
	return r.submit(ctx, submission{path: path, record: record, work: work})
}

func (r *Runtime) task(guid string) (entry, *taskRecord, error) {
	found, ok := r.records.get(taskPath(guid))
	if !ok {
		return entry{}, nil, models.ErrResourceNotFound
	}
	record, is := found.record.(*taskRecord)
	if !is || !record.Ready {
		return entry{}, nil, models.ErrResourceNotFound
	}
	return found, record, nil
}

// Task keeps the contract of bridge.Tasks.
func (r *Runtime) Task(ctx context.Context, guid string) (*models.Task, error) {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	found, record, err := r.task(guid)
	if err != nil {
		return nil, err
	}
	task, err := r.wholeTask(ctx, found, record)
	if err != nil {
		return nil, err
	}
	if task == nil {
		return nil, models.ErrResourceNotFound
	}
	return task, nil
}

// Tasks keeps the contract of bridge.Tasks.
func (r *Runtime) Tasks(ctx context.Context, filter bridge.TaskFilter) ([]*models.Task, error) {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	var wanted []entry
	for _, e := range r.records.list(tasksPath) {
		record, is := e.record.(*taskRecord)
		switch {
		case !is, !record.Ready, filter.Domain != "" && record.Domain != filter.Domain:
		case filter.CellID != "" && r.taskState(e, record).CellId != filter.CellID:
		default:
			wanted = append(wanted, e)
		}
	}
	return r.wholeTasks(ctx, wanted)
}

// wholeTasks adds the definitions to records and leaves out Tasks that have been deleted meanwhile. A definition that
// is damaged is empty: one bad variable must not hide all other Tasks from those who wait for their ends.
func (r *Runtime) wholeTasks(ctx context.Context, entries []entry) ([]*models.Task, error) {
	tasks := make([]*models.Task, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, e := range entries {
		group.Go(func() error {
			record, is := e.record.(*taskRecord)
			if !is {
				return nil
			}
			task, err := r.wholeTask(ctx, e, record)
			if errors.Is(err, errDamaged) {
				r.log.Error("a task cannot be shown whole", "task", record.GUID, "error", err)
				task, err = r.taskState(e, record), nil
				task.TaskDefinition = &models.TaskDefinition{}
			}
			tasks[i] = task
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(tasks, func(task *models.Task) bool { return task == nil }), nil
}

// wholeTask adds the definition to a record; nil when the Task has been deleted meanwhile.
func (r *Runtime) wholeTask(ctx context.Context, e entry, record *taskRecord) (*models.Task, error) {
	info, err := r.readSecrets(ctx, translate.TaskJobID(record.GUID), translate.TaskGroup, record.Chunks)
	if err != nil || info == nil {
		return nil, err
	}
	task := r.taskState(e, record)
	task.TaskDefinition = &models.TaskDefinition{}
	if err := task.TaskDefinition.Unmarshal(info.Definition); err != nil {
		return nil, fmt.Errorf("%w: task %s: %w", errDamaged, record.GUID, err)
	}
	return task, nil
}

// taskState returns a Task without its definition.
func (r *Runtime) taskState(e entry, record *taskRecord) *models.Task {
	task := &models.Task{
		TaskGuid:         record.GUID,
		Domain:           record.Domain,
		CreatedAt:        record.CreatedAt,
		UpdatedAt:        record.UpdatedAt,
		FirstCompletedAt: record.FirstCompletedAt,
		State:            record.state(r.config.Now()),
		CellId:           record.CellID,
		Failed:           record.Failed,
		FailureReason:    record.Reason,
		Result:           record.result,
	}
	if record.done() {
		return task
	}
	// A Task is completed when its record says so, a moment after its allocation does: until then it runs.
	state := translate.TaskOf(r.allocs.of(translate.TaskJobID(record.GUID)), e.createIndex, record.WantsResult)
	task.CellId = state.CellID
	if task.State = state.State; task.State == models.Task_Completed {
		task.State = models.Task_Running
	}
	return task
}

// CancelTask keeps the contract of bridge.Tasks.
func (r *Runtime) CancelTask(ctx context.Context, guid string) error {
	err := r.changeTask(ctx, guid, func(record *taskRecord) error {
		if record.done() {
			return models.NewTaskTransitionError(record.state(r.config.Now()), models.Task_Completed)
		}
		r.complete(record, translate.TaskState{Failed: true, Reason: "task was cancelled"})
		return nil
	})
	if err != nil {
		return err
	}
	r.hints.send()
	return r.stopTask(ctx, guid)
}

// stopTask ends a Task's allocation and leaves the job to be purged with the Task.
func (r *Runtime) stopTask(ctx context.Context, guid string) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.RequestTimeout)
	defer cancel()
	id := translate.TaskJobID(guid)
	if _, _, err := r.client.Jobs().Deregister(id, false, r.write(ctx)); err != nil && !isNotFound(err) {
		return fmt.Errorf("stop job %s: %w", id, err)
	}
	return nil
}

// ResolvingTask keeps the contract of bridge.Tasks.
func (r *Runtime) ResolvingTask(ctx context.Context, guid string) error {
	return r.changeTask(ctx, guid, func(record *taskRecord) error {
		if state := r.stateOf(record); state != models.Task_Completed {
			return models.NewTaskTransitionError(state, models.Task_Resolving)
		}
		record.State = taskResolving
		return nil
	})
}

// stateOf is a record's state for the text of an error.
func (r *Runtime) stateOf(record *taskRecord) models.Task_State {
	if found, ok := r.records.get(taskPath(record.GUID)); ok && !record.done() {
		return r.taskState(found, record).State
	}
	return record.state(r.config.Now())
}

// DeleteTask keeps the contract of bridge.Tasks.
func (r *Runtime) DeleteTask(ctx context.Context, guid string) error {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	defer r.guids.lock(taskPath(guid))()
	_, record, err := r.task(guid)
	if err != nil {
		return err
	}
	if record.State != taskResolving {
		return models.NewTaskTransitionError(r.stateOf(record), models.Task_Resolving)
	}
	return r.forget(ctx, taskPath(guid), translate.TaskJobID(guid), translate.TaskGroup)
}

// changeTask changes a Task's record against other writers; change sees a copy and may refuse.
func (r *Runtime) changeTask(ctx context.Context, guid string, change func(*taskRecord) error) error {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	for range attempts {
		found, record, err := r.task(guid)
		if err != nil {
			return err
		}
		changed := *record
		if err := change(&changed); err != nil {
			return err
		}
		changed.UpdatedAt = r.config.Now().UnixNano()
		_, err = r.writeRecord(ctx, found.path, found.modifyIndex, &changed)
		if !errors.Is(err, errConflict) {
			return err
		}
		if _, ok, readErr := r.readRecord(ctx, found.path); readErr != nil {
			return readErr
		} else if !ok {
			return models.ErrResourceNotFound
		}
	}
	return models.ErrResourceConflict
}

// complete ends a Task in a copy of its record.
func (r *Runtime) complete(record *taskRecord, state translate.TaskState) {
	if len(state.Result) > maxResult {
		state = translate.TaskState{CellID: state.CellID, Failed: true, Reason: "failed to fetch result"}
	}
	record.State = taskCompleted
	record.CellID = state.CellID
	record.Failed = state.Failed
	record.Reason = state.Reason
	record.result = state.Result
	record.FirstCompletedAt = r.config.Now().UnixNano()
}

// finish completes a Task unless it is already.
func (r *Runtime) finish(ctx context.Context, guid string, state translate.TaskState) error {
	var done bool
	err := r.changeTask(ctx, guid, func(record *taskRecord) error {
		if done = record.done(); done {
			return models.ErrResourceConflict
		}
		r.complete(record, state)
		return nil
	})
	if done || errors.Is(err, models.ErrResourceNotFound) {
		return nil
	}
	if err == nil {
		r.hints.send()
	}
	return err
}

// completeTasks keeps the results of all Tasks that have ended.
func (r *Runtime) completeTasks(ctx context.Context) {
	for _, e := range r.records.list(tasksPath) {
		record, is := e.record.(*taskRecord)
		if !is || !record.Ready || record.done() {
			continue
		}
		allocs := r.allocs.of(translate.TaskJobID(record.GUID))
		state := translate.TaskOf(allocs, e.createIndex, record.WantsResult)
		if state.State != models.Task_Completed {
			continue
		}
		err := r.finish(ctx, record.GUID, state)
		if err == nil && state.Failed && hasLive(allocs) {
			err = r.stopTask(ctx, record.GUID)
		}
		if err != nil {
			r.log.Error("cannot keep the result of a task, will try again", "task", record.GUID, "error", err)
		}
	}
}

// Completions keeps the contract of bridge.Tasks.
func (r *Runtime) Completions(ctx context.Context) <-chan struct{} {
	listener, stop := r.hints.listen()
	result := make(chan struct{})
	go func() {
		defer close(result)
		defer stop()
		tick := time.NewTicker(blockFor)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-listener:
			case <-tick.C:
			}
			select {
			case <-ctx.Done():
				return
			case result <- struct{}{}:
			}
		}
	}()
	return result
}

// hasLive says whether a Task's container may still run.
func hasLive(allocs []*api.AllocationListStub) bool {
	for _, alloc := range allocs {
		if alloc.DesiredStatus == api.AllocDesiredStatusRun &&
			(alloc.ClientStatus == api.AllocClientStatusRunning || alloc.ClientStatus == api.AllocClientStatusPending) {
			return true
		}
	}
	return false
}
