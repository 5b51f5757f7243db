package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"drover/driver"
	"drover/driver/apparmor"
	"drover/driver/image"
	"drover/driver/shim"
)

// Errors of this package.
var (
	// ErrNotFound says that no task of that id is known here.
	ErrNotFound = errors.New("no such task")
	// ErrStillRunning says that a task must be stopped before it is destroyed.
	ErrStillRunning = errors.New("the task still runs")
)

// Manager runs the tasks of one node. Its methods may be called from many goroutines.
type Manager struct {
	node Config
	log  *slog.Logger
	emit func(Event)
	// life ends when the plugin does; tasks go on.
	life context.Context //nolint:containedctx // StartTask has no context of its own, and the plugin's end must stop a pull

	open     sync.Once
	err      error
	store    *image.Store
	pool     *idPool
	projects *projects
	// apparmor is the host's.
	apparmor apparmor.Host

	mu    sync.Mutex
	tasks map[string]*Task
	// starting counts the starts of each container that are under way.
	starting map[string]int

	sizes sync.Map // of layers, by directory

	maintain sync.Once

	warned sync.Map // what was logged once: names of ignored fields, exposed directories
}

// Task is one started task, as this process knows it.
type Task struct {
	Record
	client *shim.Client
	// told is closed when all events of the task up to its end were handed on.
	told chan struct{}
}

// Record is what is kept of a start, by Nomad, so that the task can be recovered. It holds no secrets.
type Record struct {
	TaskID      string
	AllocID     string
	TaskName    string
	ContainerID string
	// InstanceGUID is Diego's name for this start.
	InstanceGUID string
	// Address is the container's own IP address.
	Address string
	// StopSignal is what the image wants to be stopped by; empty for SIGTERM.
	StopSignal string
	StartedAt  time.Time
	Labels     map[string]string
}

// New returns a Manager. It does no work: the state directory is made by the first call that needs it. Events are
// handed to emit one at a time for each task, in order.
func New(life context.Context, node Config, emit func(Event), log *slog.Logger) *Manager {
	return &Manager{life: life, node: node, emit: emit, log: log, tasks: map[string]*Task{}, starting: map[string]int{}}
}

// prepare opens what is on disk, once.
func (m *Manager) prepare() error {
	m.open.Do(func() {
		if m.err = os.MkdirAll(filepath.Join(m.node.StateDir, "tasks"), 0o711); m.err != nil {
			m.err = fmt.Errorf("make state_dir: %w", m.err)
			return
		}
		if m.pool, m.err = openIDPool(filepath.Join(m.node.StateDir, "ranges"), m.node.IDs); m.err != nil {
			return
		}
		if m.projects, m.err = openProjects(filepath.Join(m.node.StateDir, "projects"), m.node.Disk.ProjectBase); m.err != nil {
			return
		}
		m.store, m.err = image.Open(image.Options{
			Dir: m.node.ImageDir, Unpacker: []string{m.node.Shim, "unpack"}, Stored: m.node.IDs.Stored(),
			TLS: m.node.TLS, Insecure: m.node.InsecureRegistries, Log: m.log,
			Activity: m.node.Pull.Activity, Limits: m.node.Pull.Limits, Alive: m.holdsLease,
		})
	})
	return m.err
}

// warnIgnored logs, once for each field, that definitions ask for what this driver does not do.
func (m *Manager) warnIgnored(guid string, fields []string) {
	for _, field := range fields {
		if _, again := m.warned.LoadOrStore(field, true); !again {
			m.log.Warn("a field of the definition is not honoured; it is said once", "field", field, "first_guid", guid)
		}
	}
}

func (m *Manager) dir(containerID string) string {
	return filepath.Join(m.node.StateDir, "tasks", containerID)
}

func (m *Manager) add(t *Task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tasks[t.TaskID] = t
}

func (m *Manager) find(taskID string) (*Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tasks[taskID]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, taskID)
	}
	return t, nil
}

// Record returns what is kept of a task's start.
func (m *Manager) Record(taskID string) (Record, error) {
	t, err := m.find(taskID)
	if err != nil {
		return Record{}, err
	}
	return t.Record, nil
}

// Recover finds a task again that another process of this plugin started. One that has ended meanwhile is found too.
func (m *Manager) Recover(record Record) error {
	if _, err := m.find(record.TaskID); err == nil {
		return nil
	}
	if err := m.prepare(); err != nil {
		return err
	}
	client, err := shim.Connect(m.dir(record.ContainerID))
	if errors.Is(err, shim.ErrGone) {
		return fmt.Errorf("%w: %s left nothing in %s", ErrNotFound, record.TaskID, m.dir(record.ContainerID))
	}
	if err != nil {
		return fmt.Errorf("recover task %s: %w", record.TaskID, err)
	}
	m.follow(&Task{Record: record, client: client, told: make(chan struct{})})
	return nil
}

// follow adds a running task and passes its events on until it ends.
func (m *Manager) follow(t *Task) {
	m.add(t)
	go func() {
		defer close(t.told)
		events, err := t.client.Events(m.life)
		if err != nil {
			m.log.Warn("events of a task are lost", "task_id", t.TaskID, "error", err)
			return
		}
		for e := range events {
			m.emit(t.event(e))
		}
	}()
}

// event dresses an event of the shim for Nomad.
func (t *Task) event(e shim.Event) Event {
	notes := map[string]string{driver.AnnotationPhase: e.Phase, driver.AnnotationInstanceGUID: t.InstanceGUID}
	if t.Address != "" {
		notes[driver.AnnotationAddress] = t.Address
	}
	for name, value := range e.Annotations {
		notes[name] = value
	}
	if e.Phase == driver.PhaseStarted {
		// Everything from Nomad's call to a running container.
		notes[driver.AnnotationMillis] = strconv.FormatInt(e.Time.Sub(t.StartedAt).Milliseconds(), 10)
	}
	return Event{
		TaskID: t.TaskID, AllocID: t.AllocID, TaskName: t.TaskName, Time: e.Time, Annotations: notes,
		Message: orElse(e.Message, describePhase(e.Phase, notes)),
	}
}

// describePhase is what a person reads of an event.
func describePhase(phase string, notes map[string]string) string {
	switch phase {
	case driver.PhaseStarted:
		return describeStart(notes)
	case driver.PhaseHealthy:
		return "Container became healthy"
	case driver.PhaseEnded:
		return orElse(notes[driver.AnnotationReason], "Container ended")
	}
	return phase
}

// describeStart tells where the time went, in the one event that there is of a start: Nomad keeps ten for a task.
func describeStart(notes map[string]string) string {
	mount, create := notes[driver.AnnotationMountMillis], notes[driver.AnnotationCreateMillis]
	if mount == "" || create == "" { // an older shim does not say
		return fmt.Sprintf("Container started in %s ms", notes[driver.AnnotationMillis])
	}
	return fmt.Sprintf("Container started in %s ms: mount %s ms, create %s ms", notes[driver.AnnotationMillis], mount, create)
}

// tellTimeout bounds how long a task's result waits for its last event to be handed on first.
const tellTimeout = 5 * time.Second

// Wait returns how a task ended, once it has and its last event was handed on. Many may wait, also after the end. An
// error is never an exit: contact was lost, or nobody can tell any more (shim.ErrExitUnknown).
func (m *Manager) Wait(ctx context.Context, taskID string) (driver.Exit, error) {
	t, err := m.find(taskID)
	if err != nil {
		return driver.Exit{}, err
	}
	exit, err := t.client.Wait(ctx)
	if err != nil {
		return driver.Exit{}, err
	}
	timer := time.NewTimer(tellTimeout)
	defer timer.Stop()
	select {
	case <-t.told:
	case <-timer.C:
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
	return exit, nil
}

// Stop ends a task by its signal, or else the image's, or else SIGTERM, and after the timeout by SIGKILL. It returns
// once everything in the container is gone. A task that has ended is no error.
func (m *Manager) Stop(ctx context.Context, taskID string, timeout time.Duration, signal string) error {
	t, err := m.find(taskID)
	if err != nil {
		return err
	}
	return t.client.Stop(ctx, m.stopSignal(t, signal), timeout)
}

// stopSignal is the job's kill_signal, else the image's, else SIGTERM. A task must end also when one of them is no signal,
// but that is told.
func (m *Manager) stopSignal(t *Task, asked string) string {
	for _, signal := range []struct{ from, name string }{{"kill_signal", asked}, {"the image's STOPSIGNAL", t.StopSignal}} {
		switch {
		case signal.name == "":
		case shim.IsSignal(signal.name):
			return signal.name
		default:
			m.emit(Event{
				TaskID: t.TaskID, AllocID: t.AllocID, TaskName: t.TaskName, Time: time.Now(),
				Message: fmt.Sprintf("%s %q is no signal and is not sent; name one such as SIGINT", signal.from, signal.name),
			})
		}
	}
	return "SIGTERM"
}

// Signal sends a signal to a task's main processes.
func (m *Manager) Signal(ctx context.Context, taskID, signal string) error {
	t, err := m.find(taskID)
	if err != nil {
		return err
	}
	return t.client.Signal(ctx, signal)
}

// Exec runs one more process in a task's container.
func (m *Manager) Exec(ctx context.Context, taskID string, r shim.ExecRequest) (driver.Exit, error) {
	t, err := m.find(taskID)
	if err != nil {
		return driver.Exit{}, err
	}
	return t.client.Exec(ctx, r)
}

// Meter returns what reads a task's usage, until the task has ended; the caller closes it.
func (m *Manager) Meter(taskID string) (*shim.Meter, error) {
	t, err := m.find(taskID)
	if err != nil {
		return nil, err
	}
	return t.client.Meter()
}

// Inspect returns what is known of a task, and its exit once it has ended.
func (m *Manager) Inspect(ctx context.Context, taskID string) (Record, *driver.Exit, error) {
	t, err := m.find(taskID)
	if err != nil {
		return Record{}, nil, err
	}
	if t.client.Running() {
		return t.Record, nil, nil
	}
	exit, err := t.client.Wait(ctx)
	if err != nil {
		return t.Record, nil, err
	}
	return t.Record, &exit, nil
}

// Destroy removes everything that a task left, from what is on disk alone: this process need not know the task. Unless
// force is set, a running task is ErrStillRunning.
func (m *Manager) Destroy(ctx context.Context, taskID string, force bool) error {
	if err := m.prepare(); err != nil {
		return err
	}
	known, _ := m.find(taskID) // one that this process never heard of is destroyed as well
	if !force {
		remains, err := shim.Examine(m.dir(ContainerID(taskID)))
		if err != nil {
			return fmt.Errorf("destroy task %s: %w", taskID, err)
		}
		if remains.Running {
			return fmt.Errorf("%w: %s", ErrStillRunning, taskID)
		}
	}
	if err := m.wipe(ctx, ContainerID(taskID)); err != nil {
		return fmt.Errorf("destroy task %s: %w", taskID, err)
	}
	m.mu.Lock()
	delete(m.tasks, taskID)
	m.mu.Unlock()
	if known != nil {
		return known.client.Close()
	}
	return nil
}

// wipe removes container, directory, user ids and leases; what is not there is no error.
func (m *Manager) wipe(ctx context.Context, containerID string) error {
	// The container first: while it lives, neither its ids nor its layers may be given away.
	if err := shim.Destroy(ctx, m.dir(containerID)); err != nil {
		return err
	}
	return errors.Join(m.pool.Release(containerID), m.projects.Release(containerID), m.store.Release(containerID))
}
