package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/uuid"
)

// ErrCrashed is wrapped when an app's instances do not stay up.
var ErrCrashed = errors.New("app crashed")

// startSlack is what a start may take beyond the app's own start timeout: image pull, droplet, placement.
const startSlack = 2 * time.Minute

// AwaitRunning waits until every instance of an app runs and is routable.
func (c *Controller) AwaitRunning(ctx context.Context, app recipe.App, watch Observer) error {
	ctx, cancel := context.WithTimeout(ctx, app.Check.Timeout+startSlack)
	defer cancel()
	told := map[string]bool{}
	err := c.wait(ctx, func() (bool, error) {
		instances, err := c.Instances(ctx, app)
		if err != nil {
			return false, err
		}
		running := 0
		for _, instance := range instances {
			if instance.Index < app.Instances && instance.State == models.ActualLRPStateRunning && routable(instance) {
				running++
			}
			if note := describe(instance); !told[note] {
				told[note] = true
				watch.step("%s", note)
			}
			if instance.State == models.ActualLRPStateCrashed {
				return false, fmt.Errorf("%w: instance %d: %s", ErrCrashed, instance.Index, instance.CrashReason)
			}
		}
		return running == int(app.Instances) && len(instances) == running, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("app %s is not up after %v: %w", app.Name, app.Check.Timeout+startSlack, err)
	}
	return err
}

// routable tells whether an instance takes requests; an instance that says nothing does.
func routable(instance *models.ActualLRP) bool {
	return !instance.RoutableExists() || instance.GetRoutable()
}

// describe says how an instance is, for people.
func describe(instance *models.ActualLRP) string {
	text := fmt.Sprintf("instance %d: %s", instance.Index, State(instance))
	if instance.PlacementError != "" {
		text += ": " + instance.PlacementError
	}
	if instance.CrashReason != "" {
		text += fmt.Sprintf(" (crashed %d times: %s)", instance.CrashCount, instance.CrashReason)
	}
	return text
}

// State is an instance's state in Cloud Controller's words.
func State(instance *models.ActualLRP) string {
	switch instance.State {
	case models.ActualLRPStateUnclaimed:
		if instance.PlacementError != "" {
			return "DOWN"
		}
		return "STARTING"
	case models.ActualLRPStateClaimed:
		return "STARTING"
	default:
		return instance.State
	}
}

// RunTask runs a command with an app's droplet and waits for its end; follow may be nil.
func (c *Controller) RunTask(ctx context.Context, name, command string, follow Watch) (server.Task, error) {
	app, err := c.server.App(ctx, name)
	if err != nil {
		return server.Task{}, err
	}
	guid := uuid.NewString()
	record := server.Task{GUID: guid, App: name, Name: guid[:8], State: server.StateRunning, UpdatedAt: c.now(), Hold: follow != nil}
	task, err := recipe.Task(c.platform, app, recipe.AppTask{GUID: guid, Name: record.Name, Command: command})
	if err != nil {
		return record, err
	}
	if err := c.server.PutTask(ctx, record); err != nil {
		return record, err
	}
	if err := c.bbs.DesireTask(ctx, guid, recipe.DomainTasks, task); err != nil {
		return record, fmt.Errorf("run task: %w", err)
	}
	err = c.watch(ctx, guid, follow, func() (bool, error) {
		var err error
		record, err = c.server.Task(ctx, guid)
		return record.State != server.StateRunning, err
	})
	if err != nil {
		err = fmt.Errorf("task %s is given up: %w", guid[:8], err)
		return record, errors.Join(err, c.cancelTask(ctx, guid))
	}
	return record, nil
}
