package action

import (
	"context"
	"fmt"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// step runs one action.
type step func(ctx context.Context) error

// checkKey marks the context of a monitor's action.
type checkKey struct{}

// run runs an action tree. When the context ends, what it returns is of no interest.
func (r *Runner) run(ctx context.Context, a *models.Action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch action := valueOf(a).(type) {
	case *models.RunAction:
		return r.process(ctx, action)
	case *models.DownloadAction:
		return r.download(ctx, action)
	case *models.UploadAction:
		return r.upload(ctx, action)
	case *models.TimeoutAction:
		return r.timeout(ctx, action)
	case *models.TryAction:
		if err := r.run(ctx, action.Action); err != nil {
			r.Log.Info("an action that may fail has failed", "reason", err)
		}
		return ctx.Err()
	case *models.SerialAction:
		for _, inner := range action.Actions {
			if err := r.run(ctx, inner); err != nil {
				return err
			}
		}
		return nil
	case *models.ParallelAction:
		return parallel(ctx, r.steps(action.Actions))
	case *models.CodependentAction:
		return codependent(ctx, r.steps(action.Actions))
	case *models.EmitProgressAction:
		return r.emitProgress(ctx, action)
	}
	return &Failure{Text: "the action tree holds an action of an unknown kind", Code: 1}
}

// valueOf returns the one action that an Action holds, or nil.
func valueOf(a *models.Action) any {
	if a == nil {
		return nil
	}
	return a.GetValue()
}

func (r *Runner) steps(actions []*models.Action) []step {
	steps := make([]step, 0, len(actions))
	for _, a := range actions {
		steps = append(steps, func(ctx context.Context) error { return r.run(ctx, a) })
	}
	return steps
}

// parallel runs all and waits for all.
func parallel(ctx context.Context, steps []step) error {
	errs := make([]error, 0, len(steps))
	for err := range all(ctx, steps) {
		errs = append(errs, err)
	}
	return join(errs)
}

// codependent runs all; the first to end ends the others, and is the reason.
func codependent(ctx context.Context, steps []step) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first error
	for err := range all(ctx, steps) {
		if ctx.Err() == nil {
			first = err
			if first == nil {
				first = &Failure{Text: "Codependent step exited"}
			}
			cancel()
		}
	}
	if first == nil {
		return ctx.Err()
	}
	return first
}

// all runs steps at once, and gives their errors in the order in which they end.
func all(ctx context.Context, steps []step) <-chan error {
	results, out := make(chan error), make(chan error)
	for _, s := range steps {
		go func() { results <- s(ctx) }()
	}
	go func() {
		defer close(out)
		for range steps {
			out <- <-results
		}
	}()
	return out
}

func (r *Runner) timeout(ctx context.Context, a *models.TimeoutAction) error {
	limit := time.Duration(a.TimeoutMs) * time.Millisecond
	if limit <= 0 {
		limit = time.Duration(a.DeprecatedTimeoutNs) // old clients set it
	}
	if limit <= 0 {
		return &Failure{Text: "the action tree holds a timeout of no time", Code: 1}
	}
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := r.run(inner, a.Action)
	if inner.Err() == nil || ctx.Err() != nil || err == nil {
		return err
	}
	return &Failure{Text: fmt.Sprintf("exceeded %s timeout", limit), Code: 1}
}

func (r *Runner) emitProgress(ctx context.Context, a *models.EmitProgressAction) error {
	r.say(a.StartMessage)
	err := r.run(ctx, a.Action)
	switch {
	case err == nil:
		r.say(a.SuccessMessage)
	case a.FailureMessagePrefix != "" && ctx.Err() == nil:
		r.say(a.FailureMessagePrefix + ": " + err.Error())
	case a.FailureMessagePrefix != "":
		r.say(a.FailureMessagePrefix)
	}
	return err
}

func (r *Runner) say(line string) {
	if line != "" {
		r.World.Log(line)
	}
}

func (r *Runner) process(ctx context.Context, a *models.RunAction) error {
	source := a.LogSource
	if source == "" {
		source = r.source
	}
	if len(a.VolumeMountedFiles) > 0 {
		return &Failure{Text: source + ": volume_mounted_files are not supported", Code: 1}
	}
	check := ctx.Value(checkKey{}) != nil
	status, err := r.World.Run(ctx, Command{
		Process: driver.Process{
			Args: append([]string{a.Path}, a.Args...), Env: r.env(a), Dir: a.Dir, User: a.User,
			NoFile: a.ResourceLimits.GetNofile(), NProc: a.ResourceLimits.GetNproc(),
		},
		Silent: a.SuppressLogOutput, Check: check,
	})
	if err == nil && !check {
		r.setLast(status.Code)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return &Failure{Text: prefix(source, fmt.Sprintf("cannot run %s: %v", a.Path, err)), Code: 1}
	}
	if status.Code == 0 {
		return nil
	}
	text := prefix(source, fmt.Sprintf("Exited with status %d", status.Code))
	if status.OutOfMemory && !lifecycleStatus(status.Code) {
		text += " (out of memory)"
	}
	return &Failure{Text: text, Code: status.Code}
}

// lifecycleStatus: Cloud Controller knows a builder's failures by the end of the text.
func lifecycleStatus(code int) bool { return code >= 222 && code <= 237 }

func prefix(source, text string) string {
	if source == "" {
		return text
	}
	return source + ": " + text
}

// env is the container's environment, then the action's own, then what tells the instance where it is.
func (r *Runner) env(a *models.RunAction) []string {
	env := append([]string{}, r.Work.Env...)
	for _, v := range a.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	return append(env, r.Work.InstanceEnv...)
}
