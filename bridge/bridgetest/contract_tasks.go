package bridgetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/bridge"
)

func testDesireTask(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireTask(ctx, "task-1", "cf-tasks", Task()))
	mustDo(t, runtime.DesireTask(ctx, "task-2", "cf-app-staging", Task()))
	task := mustGet(runtime.Task(ctx, "task-1"))(t)
	if task.State != models.Task_Pending || task.TaskGuid != "task-1" || task.Domain != "cf-tasks" || task.CreatedAt == 0 {
		t.Errorf("got task %s in domain %s, %s, created %d; want a pending task-1 in cf-tasks", task.TaskGuid, task.Domain, task.State, task.CreatedAt)
	}
	if diff := cmp.Diff(asJSON(t, Task()), asJSON(t, task.TaskDefinition)); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
	tasks := mustGet(runtime.Tasks(ctx, bridge.TaskFilter{Domain: "cf-app-staging"}))(t)
	if len(tasks) != 1 || tasks[0].TaskGuid != "task-2" || tasks[0].TaskDefinition == nil {
		t.Errorf("got %v, want task-2 alone with its definition", tasks)
	}
	if all := mustGet(runtime.Tasks(ctx, bridge.TaskFilter{}))(t); len(all) != 2 {
		t.Errorf("got %d tasks, want 2", len(all))
	}
	if none := mustGet(runtime.Tasks(ctx, bridge.TaskFilter{CellID: "none"}))(t); len(none) != 0 {
		t.Errorf("got %d tasks of an unknown cell, want none", len(none))
	}
}

func testDesireTaskTwice(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireTask(ctx, "task-1", "cf-tasks", Task()))
	mustFail(t, runtime.DesireTask(ctx, "task-1", "other", Task()), models.ErrResourceExists)
}

func testUnknownTask(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	_, err := runtime.Task(ctx, "none")
	mustFail(t, err, models.ErrResourceNotFound)
	mustFail(t, runtime.CancelTask(ctx, "none"), models.ErrResourceNotFound)
	mustFail(t, runtime.ResolvingTask(ctx, "none"), models.ErrResourceNotFound)
	mustFail(t, runtime.DeleteTask(ctx, "none"), models.ErrResourceNotFound)
}

func testCancelTask(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireTask(ctx, "task-1", "cf-tasks", Task()))
	mustFail(t, runtime.ResolvingTask(ctx, "task-1"), models.NewTaskTransitionError(models.Task_Pending, models.Task_Resolving))
	mustFail(t, runtime.DeleteTask(ctx, "task-1"), models.NewTaskTransitionError(models.Task_Pending, models.Task_Resolving))
	mustDo(t, runtime.CancelTask(ctx, "task-1"))
	task := mustGet(runtime.Task(ctx, "task-1"))(t)
	if task.State != models.Task_Completed || !task.Failed || task.FailureReason != "task was cancelled" || task.CellId != "" {
		t.Errorf("got %s, failed %t, reason %q, cell %q; want it completed, failed, \"task was cancelled\"",
			task.State, task.Failed, task.FailureReason, task.CellId)
	}
	if task.FirstCompletedAt == 0 {
		t.Error("the time of completion is not set")
	}
	mustFail(t, runtime.CancelTask(ctx, "task-1"), models.NewTaskTransitionError(models.Task_Completed, models.Task_Completed))
	mustFail(t, runtime.DeleteTask(ctx, "task-1"), models.NewTaskTransitionError(models.Task_Completed, models.Task_Resolving))
	mustDo(t, runtime.ResolvingTask(ctx, "task-1"))
	mustFail(t, runtime.ResolvingTask(ctx, "task-1"), models.NewTaskTransitionError(models.Task_Resolving, models.Task_Resolving))
	mustDo(t, runtime.DeleteTask(ctx, "task-1"))
	_, err := runtime.Task(ctx, "task-1")
	mustFail(t, err, models.ErrResourceNotFound)
	mustDo(t, runtime.DesireTask(ctx, "task-1", "cf-tasks", Task()))
}

func testCompletions(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hints := runtime.Completions(ctx)
	mustDo(t, runtime.DesireTask(ctx, "task-1", "cf-tasks", Task()))
	mustDo(t, runtime.CancelTask(ctx, "task-1"))
	select {
	case <-hints:
	case <-ctx.Done():
		t.Fatalf("no hint in %s", patience)
	}
	cancel()
	deadline := time.After(patience)
	for {
		select {
		case _, open := <-hints:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the channel stays open after its context has ended")
		}
	}
}

func testDomains(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.UpsertDomain(ctx, "for-ever", 0))
	mustDo(t, runtime.UpsertDomain(ctx, "for.a/while", time.Hour))
	mustDo(t, runtime.UpsertDomain(ctx, "short", time.Second))
	fresh := mustGet(runtime.FreshDomains(ctx))(t)
	for _, domain := range []string{"for-ever", "for.a/while"} {
		if !slices.Contains(fresh, domain) {
			t.Errorf("%s is not among the fresh domains %v", domain, fresh)
		}
	}
	eventually(t, "the short domain is stale", func(ctx context.Context) bool {
		fresh, err := runtime.FreshDomains(ctx)
		return err == nil && !slices.Contains(fresh, "short")
	})
	mustDo(t, runtime.UpsertDomain(ctx, "short", time.Hour))
	if fresh := mustGet(runtime.FreshDomains(ctx))(t); !slices.Contains(fresh, "short") {
		t.Errorf("a domain does not become fresh again: %v", fresh)
	}
}
