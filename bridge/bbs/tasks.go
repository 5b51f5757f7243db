package bbs

import (
	"context"
	"time"

	"code.cloudfoundry.org/bbs/format"
	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

func taskLifecycle(e *models.Error) message { return &models.TaskLifecycleResponse{Error: e} }

func (d *door) desireTask() answer {
	return change(func(ctx context.Context, q *models.DesireTaskRequest) error {
		return d.runtime.DesireTask(ctx, q.TaskGuid, q.Domain, q.TaskDefinition)
	}, taskLifecycle)
}

func (d *door) task() answer {
	return read(func(ctx context.Context, q *models.TaskByGuidRequest) (message, error) {
		task, err := d.runtime.Task(ctx, q.TaskGuid)
		if err != nil {
			return nil, err
		}
		return &models.TaskResponse{Task: task.VersionDownTo(format.V2)}, nil
	}, func(e *models.Error) message { return &models.TaskResponse{Error: e} })
}

func (d *door) tasks() answer {
	return read(func(ctx context.Context, q *models.TasksRequest) (message, error) {
		tasks, err := d.runtime.Tasks(ctx, bridge.TaskFilter{Domain: q.Domain, CellID: q.CellId})
		for i, task := range tasks {
			tasks[i] = task.VersionDownTo(format.V2)
		}
		return &models.TasksResponse{Tasks: tasks}, err
	}, func(e *models.Error) message { return &models.TasksResponse{Error: e} })
}

func (d *door) cancelTask() answer {
	return change(func(ctx context.Context, q *models.TaskGuidRequest) error {
		return d.runtime.CancelTask(ctx, q.TaskGuid)
	}, taskLifecycle)
}

func (d *door) upsertDomain() answer {
	return change(func(ctx context.Context, q *models.UpsertDomainRequest) error {
		return d.runtime.UpsertDomain(ctx, q.Domain, time.Duration(q.Ttl)*time.Second)
	}, func(e *models.Error) message { return &models.UpsertDomainResponse{Error: e} })
}

// ping answers any body, and asks nobody: it says that we are listening.
func (d *door) ping() answer {
	return func(context.Context, []byte, *models.Error) reply {
		return reply{message: &models.PingResponse{Available: true}}
	}
}
