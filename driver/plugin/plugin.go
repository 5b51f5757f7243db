package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/client/lib/cpustats"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"drover/driver"
	"drover/driver/probe"
	"drover/driver/selftest"
	"drover/driver/shim"
	"drover/driver/task"
)

// Driver answers Nomad's calls.
type Driver struct {
	// life ends when the plugin is told to go.
	life    context.Context //nolint:containedctx // Nomad's calls carry none
	log     hclog.Logger
	events  events
	config  config
	node    task.Config
	compute cpustats.Compute
	tasks   *task.Manager
	sweep   sync.Once
	looking sync.Mutex // guards prober
	prober  probe.Prober
	trial   selftest.Trial
	// quotaTold is done once the log says why disk is limited by measuring.
	quotaTold sync.Once
}

var (
	_ drivers.DriverPlugin            = (*Driver)(nil)
	_ drivers.ExecTaskStreamingDriver = (*Driver)(nil)
)

// Serve runs the plugin until the agent ends it.
func Serve() {
	life, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	plugins.Serve(func(log hclog.Logger) any { return New(life, log) })
}

// New returns a driver that waits for its configuration.
func New(life context.Context, log hclog.Logger) *Driver {
	log = log.Named(Name)
	return &Driver{life: life, log: log, trial: selftest.Trial{Run: selftest.Run, Log: slog.New(logHandler{log})}}
}

// PluginInfo says who this is.
func (d *Driver) PluginInfo() (*base.PluginInfoResponse, error) { return pluginInfo(), nil }

// ConfigSchema returns the schema of the agent's plugin block.
func (d *Driver) ConfigSchema() (*hclspec.Spec, error) { return configSpec(), nil }

// TaskConfigSchema returns the schema of a task's config block.
func (d *Driver) TaskConfigSchema() (*hclspec.Spec, error) { return taskConfigSpec(), nil }

// Capabilities says what this driver can do.
func (d *Driver) Capabilities() (*drivers.Capabilities, error) { return capabilities(), nil }

// SetConfig checks and keeps the operator's configuration; it does nothing else.
func (d *Driver) SetConfig(c *base.Config) error {
	decoded := config{nodeConfig: nodeConfig{Enabled: true}}
	if len(c.PluginConfig) > 0 {
		if err := base.MsgPackDecode(c.PluginConfig, &decoded); err != nil {
			return fmt.Errorf("plugin %q: config: %w", Name, err)
		}
	}
	node, err := decoded.node()
	if err != nil {
		return fmt.Errorf("plugin %q: config: %w", Name, err)
	}
	d.config, d.node, d.compute = decoded, node, c.AgentConfig.Compute()
	d.tasks = task.New(d.life, node, d.events.send, slog.New(logHandler{d.log}))
	return nil
}

// StartTask starts a task.
func (d *Driver) StartTask(cfg *drivers.TaskConfig) (*drivers.TaskHandle, *drivers.DriverNetwork, error) {
	req, err := request(cfg)
	if err != nil {
		return nil, nil, err
	}
	d.log.Debug("starting task", "task_id", cfg.ID)
	record, err := d.tasks.Start(req)
	if err != nil {
		// Not wrapped: Nomad looks at the outermost error to see whether it may try again.
		return nil, nil, structs.NewRecoverableError(err, task.Temporary(err))
	}
	handle := drivers.NewTaskHandle(handleVersion)
	handle.Config, handle.State = cfg, drivers.TaskStateRunning
	if err := handle.SetDriverState(&record); err != nil {
		destroyed := d.tasks.Destroy(context.WithoutCancel(d.life), cfg.ID, true)
		return nil, nil, errors.Join(fmt.Errorf("encode task handle: %w", err), destroyed)
	}
	return handle, nil, nil
}

// RecoverTask finds a task that an earlier process of this plugin started.
func (d *Driver) RecoverTask(handle *drivers.TaskHandle) error {
	if handle == nil {
		return errors.New("recover: no task handle is given")
	}
	if handle.Version != handleVersion {
		return fmt.Errorf("recover task: its handle has version %d and this plugin knows %d: restart the task", handle.Version, handleVersion)
	}
	var record task.Record
	if err := handle.GetDriverState(&record); err != nil {
		return fmt.Errorf("recover task: decode its handle: %w", err)
	}
	return known(d.tasks.Recover(record))
}

// WaitTask tells how a task ended, once it has. That contact was lost is no result.
func (d *Driver) WaitTask(ctx context.Context, taskID string) (<-chan *drivers.ExitResult, error) {
	if _, err := d.tasks.Record(taskID); err != nil {
		return nil, known(err)
	}
	ch := make(chan *drivers.ExitResult, 1)
	go func() {
		exit, err := d.tasks.Wait(ctx, taskID)
		switch {
		case ctx.Err() != nil:
			return // the caller went away, and must not hear of an end that was none
		case err != nil:
			ch <- &drivers.ExitResult{ExitCode: -1, Err: err}
		default:
			ch <- exitResult(exit)
		}
	}()
	return ch, nil
}

func exitResult(e driver.Exit) *drivers.ExitResult {
	r := &drivers.ExitResult{ExitCode: e.Code, Signal: e.Signal, OOMKilled: e.OOMKilled}
	if e.DiskExceeded != "" {
		r.Err = errors.New(e.DiskExceeded) // which Nomad shows with the task's end
	}
	return r
}

// StopTask ends a task and returns once it is dead.
func (d *Driver) StopTask(taskID string, timeout time.Duration, signal string) error {
	return known(d.tasks.Stop(d.life, taskID, timeout, signal))
}

// DestroyTask removes everything that a task left, also one that this process never heard of.
func (d *Driver) DestroyTask(taskID string, force bool) error {
	return d.tasks.Destroy(context.WithoutCancel(d.life), taskID, force)
}

// SignalTask sends a signal to a task.
func (d *Driver) SignalTask(taskID, signal string) error {
	return known(d.tasks.Signal(d.life, taskID, signal))
}

// InspectTask says how a task is.
func (d *Driver) InspectTask(taskID string) (*drivers.TaskStatus, error) {
	record, exit, err := d.tasks.Inspect(d.life, taskID)
	if err != nil {
		return nil, known(err)
	}
	status := &drivers.TaskStatus{
		ID: taskID, Name: record.TaskName, State: drivers.TaskStateRunning, StartedAt: record.StartedAt,
		DriverAttributes: map[string]string{"container_id": record.ContainerID, "instance_guid": record.InstanceGUID, "address": record.Address},
	}
	for name, value := range record.Labels {
		status.DriverAttributes["label."+name] = value
	}
	if exit != nil {
		status.State, status.StartedAt, status.CompletedAt, status.ExitResult = drivers.TaskStateExited, exit.Started, exit.Ended, exitResult(*exit)
	}
	return status, nil
}

// TaskEvents passes on what happens to tasks.
func (d *Driver) TaskEvents(ctx context.Context) (<-chan *drivers.TaskEvent, error) {
	return d.events.listen(ctx), nil
}

// known makes our "no such task" Nomad's, which it looks for by its text.
func known(err error) error {
	if errors.Is(err, task.ErrNotFound) || errors.Is(err, shim.ErrGone) {
		return drivers.ErrTaskNotFound
	}
	return err
}
