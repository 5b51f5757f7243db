package plugin

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/shim"
)

// maxExecOutput is how much of each stream ExecTask keeps: its callers want the result of a check.
const maxExecOutput = 1 << 20

// ExecTask runs a command in a task's container to its end, as script checks do.
func (d *Driver) ExecTask(taskID string, command []string, timeout time.Duration) (*drivers.ExecTaskResult, error) {
	ctx, cancel := context.WithTimeout(d.life, timeout)
	defer cancel()
	stdout, stderr := &clipped{}, &clipped{}
	exit, err := d.tasks.Exec(ctx, taskID, shim.ExecRequest{
		Process: driver.Process{Args: command}, Stdout: stdout, Stderr: stderr,
	})
	if err != nil {
		return nil, known(err)
	}
	return &drivers.ExecTaskResult{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), ExitResult: exitResult(exit)}, nil
}

// clipped keeps the beginning of what is written to it.
type clipped struct{ bytes.Buffer }

func (c *clipped) Write(p []byte) (int, error) {
	if room := maxExecOutput - c.Len(); room > 0 {
		c.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// ExecTaskStreaming runs a command in a task's container with the caller at its standard streams.
func (d *Driver) ExecTaskStreaming(ctx context.Context, taskID string, o *drivers.ExecOptions) (*drivers.ExitResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The reader that copies our standard input ends with it.
	defer func() { _ = o.Stdin.Close() }()
	exit, err := d.tasks.Exec(ctx, taskID, shim.ExecRequest{
		Process: driver.Process{Args: o.Command}, TTY: o.Tty,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Resize: resizes(ctx, o.ResizeCh),
	})
	if err != nil {
		return nil, known(err)
	}
	return exitResult(exit), nil
}

// resizes turns Nomad's terminal sizes into columns and rows.
func resizes(ctx context.Context, sizes <-chan drivers.TerminalSize) <-chan [2]uint16 {
	out := make(chan [2]uint16, 1)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case s, open := <-sizes:
				if !open {
					return
				}
				select {
				case <-ctx.Done():
					return
				case out <- [2]uint16{uint16(s.Width), uint16(s.Height)}:
				}
			}
		}
	}()
	return out
}

var errNoInterval = errors.New("stats: the interval must be more than zero")
