// Package action runs Diego's work: the action tree of a DesiredLRP or a TaskDefinition, in the words and with the
// failure texts that Cloud Controller and its users know.
//
// A Runner walks a tree of bbs/models actions. What an action does to a container goes through World, which the shim
// provides: processes run inside, archives are unpacked into it, files read from it. What the platform does itself
// (downloads, uploads, health checks) is done here, outside, with the platform's credentials, which no container sees.
//
// Actions nest in any way:
//
//	Run          a process; its exit status must be 0
//	Download     an archive, verified, unpacked into the container
//	Upload       a file of the container
//	Serial       one after the other, until one fails
//	Parallel     all at once; waits for all
//	Codependent  all at once; when one ends, however it does, the others are ended, and it has failed
//	Timeout      its action is ended when the time is over, and it has failed
//	Try          its action may fail
//	EmitProgress says what is going on in the log
//
// When the context ends the tree is ended: running processes are told so and awaited, and no new action begins.
package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// Limits of what is handed back.
const (
	maxResult = 50 << 10
	maxReason = 1024
)

// Command is a process to be run in the container.
type Command struct {
	driver.Process
	// Silent throws its output away.
	Silent bool
	// Check marks a process of a health check, which is none of the task's main processes.
	Check bool
}

// Status is how a process ended.
type Status struct {
	// Code is its exit status, 128+n for a signal.
	Code int
	// OutOfMemory says that memory ran out in the container while it ran.
	OutOfMemory bool
}

// World is a container, and the place that it has in the network, as a Runner sees it.
type World interface {
	// Run runs a process to its end. When the context ends, the process is told to end, later killed, and Run returns
	// how it went all the same.
	Run(ctx context.Context, c Command) (Status, error)
	// Unpack puts an archive of any supported format into a directory of the container; it will belong to the user.
	// A relative directory begins at the user's home.
	Unpack(ctx context.Context, user, to string, archive *os.File) error
	// Open opens a plain file of the container. A relative path begins at the user's home.
	Open(user, path string) (*os.File, error)
	// Log writes one line to the task's log.
	Log(line string)
	// Address is the IPv4 address that the container is reached at.
	Address() (string, error)
	// Dial connects from within the container's network.
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// Options make a Runner.
type Options struct {
	World World
	Work  driver.Work
	// Temp is a directory for downloads on their way.
	Temp string
	Log  *slog.Logger
}

// Outcome is how the work ended.
type Outcome struct {
	// Code is the status of the process that decided, or 1 when none did.
	Code int
	// Reason is Diego's text for a failure; empty on success, and when the work was told to end.
	Reason string
	// Result is the content of a Task's result file.
	Result string
}

// Runner runs one piece of work, once.
type Runner struct {
	Options
	source string // log source where an action names none
	done   map[string]bool

	mu   sync.Mutex
	last int // status of the last main process to end
}

// Failure is a failed action. Its text is for Cloud Controller and its users.
type Failure struct {
	Text string
	// Code is the exit status behind it, or 0.
	Code int
}

func (f *Failure) Error() string { return f.Text }

// Run runs the work. Healthy is called when an LRP is found healthy for the first time; an LRP without checks is so at
// once, a Task never.
func Run(ctx context.Context, o Options, healthy func()) Outcome {
	r := &Runner{Options: o, done: map[string]bool{}}
	for _, pair := range o.Work.Done {
		r.done[pair] = true
	}
	var result string
	err := r.decodeAndRun(ctx, healthy, &result)
	if ctx.Err() != nil {
		return Outcome{Code: r.lastStatus()}
	}
	if err == nil {
		return Outcome{Result: result}
	}
	o.Log.Info("the work has failed", "guid", o.Work.Info.GUID, "reason", err)
	outcome := Outcome{Code: 1, Reason: truncate(err.Error())}
	if f := new(Failure); errors.As(err, &f) {
		outcome.Code = f.Code
	}
	return outcome
}

func (r *Runner) decodeAndRun(ctx context.Context, healthy func(), result *string) error {
	info := r.Work.Info
	switch info.Kind {
	case driver.KindTask:
		var task models.TaskDefinition
		if err := task.Unmarshal(info.Definition); err != nil {
			return fmt.Errorf("%w: %w", driver.ErrBadRunInfo, err)
		}
		return r.task(ctx, &task, result)
	case driver.KindLRP:
		var lrp models.DesiredLRP
		if err := lrp.Unmarshal(info.Definition); err != nil {
			return fmt.Errorf("%w: %w", driver.ErrBadRunInfo, err)
		}
		return r.lrp(ctx, &lrp, healthy)
	}
	return fmt.Errorf("%w: kind %q", driver.ErrBadRunInfo, info.Kind)
}

func (r *Runner) task(ctx context.Context, task *models.TaskDefinition, result *string) error {
	r.source = task.LogSource
	if err := r.run(ctx, task.Action); err != nil {
		return err
	}
	if task.ResultFile == "" {
		return nil
	}
	text, err := r.readResult(task.ResultFile)
	if err != nil {
		r.Log.Warn("cannot read the result file", "error", err)
		return &Failure{Text: "failed to fetch result", Code: 1}
	}
	*result = text
	return nil
}

func (r *Runner) readResult(path string) (string, error) {
	file, err := r.World.Open("root", path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxResult+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxResult {
		return "", fmt.Errorf("it is larger than %d bytes", maxResult)
	}
	return string(text), nil
}

func (r *Runner) lastStatus() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *Runner) setLast(code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = code
}

// truncate cuts a text as Diego does.
func truncate(text string) string {
	const mark = "(truncated)"
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason-len(mark)], "") + mark
}

// join makes one failure of several, as Diego words it. Nil errors are left out.
func join(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	joined := &Failure{Code: 1}
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
		if f := new(Failure); errors.As(err, &f) && joined.Code == 1 {
			joined.Code = f.Code
		}
	}
	joined.Text = strings.Join(texts, "; ")
	return joined
}
