package bridgetest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

// DesireTask keeps the contract of bridge.Tasks.
func (m *Memory) DesireTask(_ context.Context, guid, domain string, task *models.TaskDefinition) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tasks[guid] != nil {
		return models.ErrResourceExists
	}
	now := m.now().UnixNano()
	m.tasks[guid] = &models.Task{
		TaskDefinition: clone(task),
		TaskGuid:       guid,
		Domain:         domain,
		CreatedAt:      now,
		UpdatedAt:      now,
		State:          models.Task_Pending,
	}
	return nil
}

// Task keeps the contract of bridge.Tasks.
func (m *Memory) Task(_ context.Context, guid string) (*models.Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	task, err := m.task(guid)
	if err != nil {
		return nil, err
	}
	return clone(task), nil
}

// task returns the kept value, after a stale claim of its result has been given up.
func (m *Memory) task(guid string) (*models.Task, error) {
	task := m.tasks[guid]
	if task == nil {
		return nil, models.ErrResourceNotFound
	}
	age := m.now().Sub(time.Unix(0, task.UpdatedAt))
	if task.State == models.Task_Resolving && age > resolvingTimeout {
		task.State = models.Task_Completed
	}
	return task, nil
}

// Tasks keeps the contract of bridge.Tasks.
func (m *Memory) Tasks(_ context.Context, filter bridge.TaskFilter) ([]*models.Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var result []*models.Task
	for guid := range m.tasks {
		task, err := m.task(guid)
		if err != nil {
			return nil, err
		}
		if filter.Domain != "" && task.Domain != filter.Domain {
			continue
		}
		if filter.CellID != "" && task.CellId != filter.CellID {
			continue
		}
		result = append(result, clone(task))
	}
	slices.SortFunc(result, func(a, b *models.Task) int { return cmp.Compare(a.TaskGuid, b.TaskGuid) })
	return result, nil
}

// CancelTask keeps the contract of bridge.Tasks.
func (m *Memory) CancelTask(_ context.Context, guid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	task, err := m.task(guid)
	if err != nil {
		return err
	}
	if task.State != models.Task_Pending && task.State != models.Task_Running {
		return models.NewTaskTransitionError(task.State, models.Task_Completed)
	}
	m.complete(task, "task was cancelled", "")
	return nil
}

// ResolvingTask keeps the contract of bridge.Tasks.
func (m *Memory) ResolvingTask(_ context.Context, guid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	task, err := m.task(guid)
	if err != nil {
		return err
	}
	if task.State != models.Task_Completed {
		return models.NewTaskTransitionError(task.State, models.Task_Resolving)
	}
	task.State = models.Task_Resolving
	task.UpdatedAt = m.now().UnixNano()
	return nil
}

// DeleteTask keeps the contract of bridge.Tasks.
func (m *Memory) DeleteTask(_ context.Context, guid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	task, err := m.task(guid)
	if err != nil {
		return err
	}
	if task.State != models.Task_Resolving {
		return models.NewTaskTransitionError(task.State, models.Task_Resolving)
	}
	delete(m.tasks, guid)
	return nil
}

// Completions keeps the contract of bridge.Tasks.
func (m *Memory) Completions(ctx context.Context) <-chan struct{} {
	hints := make(chan struct{}, 1)
	m.mu.Lock()
	m.hints[hints] = struct{}{}
	m.mu.Unlock()
	result := make(chan struct{})
	go func() {
		defer close(result)
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.hints, hints)
		}()
		tick := time.NewTicker(resolvingTimeout)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hints:
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

// complete ends a task; an empty failure means success.
func (m *Memory) complete(task *models.Task, failure, result string) {
	now := m.now().UnixNano()
	task.State = models.Task_Completed
	task.Failed = failure != ""
	task.FailureReason = failure
	task.Result = result
	task.UpdatedAt = now
	task.FirstCompletedAt = now
	task.CellId = ""
	for hint := range m.hints {
		select {
		case hint <- struct{}{}:
		default:
		}
	}
}
