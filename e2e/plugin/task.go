package plugin

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/jobspec2"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"github.com/zclconf/go-cty/cty"
)

// Task is a task as Nomad prepares it.
type Task struct {
	// Config is what StartTask is given.
	Config *drivers.TaskConfig
	// Handle is what StartTask gave.
	Handle *drivers.TaskHandle

	node           *Node
	stdout, stderr *stream
	cgroups        []string
}

// Task prepares a task named main whose config block is given in HCL: 50 MHz, 64 MB, in the node's network.
func (n *Node) Task(t *testing.T, config string, change ...func(*drivers.TaskConfig)) *Task {
	t.Helper()
	alloc := uuid.NewString()
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	dir := filepath.Join(n.Dir, "alloc", alloc)
	task := &Task{node: n, Config: &drivers.TaskConfig{
		ID: alloc + "/main/" + hex.EncodeToString(suffix), AllocID: alloc, Name: "main", JobID: "job", JobName: "job",
		TaskGroupName: "group", Namespace: "default", AllocDir: dir,
		Env: map[string]string{
			"NOMAD_ALLOC_DIR": "/alloc", "NOMAD_TASK_DIR": "/local", "NOMAD_SECRETS_DIR": "/secrets", "NOMAD_ALLOC_ID": alloc, "NOMAD_TASK_NAME": "main",
		},
		StdoutPath: filepath.Join(dir, "alloc/logs/.main.stdout.fifo"), StderrPath: filepath.Join(dir, "alloc/logs/.main.stderr.fifo"),
		Resources: &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{
				Cpu: structs.AllocatedCpuResources{CpuShares: 50}, Memory: structs.AllocatedMemoryResources{MemoryMB: 64},
			},
			LinuxResources: &drivers.LinuxResources{CPUShares: 50, MemoryLimitBytes: 64 << 20, PercentTicks: 0.0125},
		},
	}}
	for _, c := range change {
		c(task.Config)
	}
	if err := task.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := task.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.tasks = append(n.tasks, task)
	n.mu.Unlock()
	return task
}

// SetConfig puts a config block, given in HCL, in the place of the task's own.
func (t *Task) SetConfig(body string) error {
	config, err := ConfigMap(body)
	if err != nil {
		return err
	}
	return t.SetConfigMap(config)
}

// ConfigMap reads a config block as Nomad reads it in a jobspec.
func ConfigMap(body string) (map[string]any, error) {
	job, err := jobspec2.Parse("task.hcl", strings.NewReader(
		"job \"job\" {\n group \"group\" {\n task \"main\" {\n driver = \"drover\"\n config {\n"+body+"\n}\n}\n}\n}"))
	if err != nil {
		return nil, err
	}
	return job.TaskGroups[0].Tasks[0].Config, nil
}

// SetConfigMap puts a config block in the place of the task's own, given as a jobspec in JSON has it.
func (t *Task) SetConfigMap(config map[string]any) error {
	spec, err := t.node.TaskConfigSchema()
	if err != nil {
		return err
	}
	decoder, diags := hclspecutils.Convert(spec)
	if diags.HasErrors() {
		return diags
	}
	value, diags, errs := hclutils.ParseHclInterface(config, decoder, nil)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if diags.HasErrors() {
		return diags
	}
	return t.Config.EncodeDriverConfig(value)
}

// decode reads an HCL body by a schema, as the agent does.
func decode(spec *hclspec.Spec, body string) (cty.Value, error) {
	decoder, diags := hclspecutils.Convert(spec)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	file, diags := hclparse.NewParser().ParseHCL([]byte(body), "config.hcl")
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	value, diags := hcldec.Decode(file.Body, decoder, &hcl.EvalContext{})
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return value, nil
}

// prepare makes the directories, the fifos and the cgroup of the task.
func (t *Task) prepare() error {
	c := t.Config
	own := filepath.Join(c.AllocDir, c.Name)
	for path, mode := range map[string]os.FileMode{
		filepath.Join(c.AllocDir, "alloc/logs"): 0o777, filepath.Join(c.AllocDir, "alloc/data"): 0o777, filepath.Join(c.AllocDir, "alloc/tmp"): 0o777,
		filepath.Join(own, "local"): 0o777, filepath.Join(own, "secrets"): 0o777, filepath.Join(own, "private"): 0o700, filepath.Join(own, "tmp"): 0o777,
	} {
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode)); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(c.AllocDir, "alloc"), 0o777); err != nil { //nolint:gosec // as Nomad makes it
		return err
	}
	var err error
	if t.stdout, err = listen(c.StdoutPath); err != nil {
		return err
	}
	if t.stderr, err = listen(c.StderrPath); err != nil {
		return err
	}
	t.cgroups, c.Resources.LinuxResources.CpusetCgroupPath, err = makeCgroups(c.AllocID + "." + c.Name)
	return err
}

// release removes what prepare made.
func (t *Task) release() {
	t.stdout.close()
	t.stderr.close()
	for _, dir := range t.cgroups {
		_ = os.Remove(dir) // the driver may have done it
	}
}

// Start starts the task.
func (t *Task) Start(tb testing.TB) {
	tb.Helper()
	if err := t.TryStart(); err != nil {
		tb.Fatalf("start: %v", err)
	}
}

// TryStart starts the task and returns the plugin's error.
func (t *Task) TryStart() (err error) {
	t.Handle, _, err = t.node.StartTask(t.Config)
	return err
}

// Wait waits until the task has ended.
func (t *Task) Wait(tb testing.TB) *drivers.ExitResult {
	tb.Helper()
	ends, err := t.node.WaitTask(tb.Context(), t.Config.ID)
	if err != nil {
		tb.Fatalf("wait: %v", err)
	}
	select {
	case exit := <-ends:
		t.stdout.settle()
		t.stderr.settle()
		return exit
	case <-time.After(5 * time.Minute): // on an emulated machine a full disk takes more than one
		tb.Fatalf("the task has not ended; stdout %q, stderr %q", t.Stdout(), t.Stderr())
		return nil
	}
}

// Run starts the task, waits until it has ended, and returns how.
func (t *Task) Run(tb testing.TB) *drivers.ExitResult {
	tb.Helper()
	t.Start(tb)
	return t.Wait(tb)
}

// Stdout is what the task has written to its standard output.
func (t *Task) Stdout() string { return t.stdout.String() }

// Stderr is what the task has written to its standard error.
func (t *Task) Stderr() string { return t.stderr.String() }

// Notes are the annotations of all the task's events, the later ones over the earlier.
func (t *Task) Notes() map[string]string {
	all := map[string]string{}
	for _, event := range t.node.Events(t.Config.ID) {
		maps.Copy(all, event.Annotations)
	}
	return all
}

// Eventually looks until a condition holds, and reports whether it did in time.
func Eventually(limit time.Duration, good func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !good() {
		select {
		case <-deadline.C:
			return false
		case <-ticker.C:
		}
	}
	return true
}

// stream reads a fifo, as logmon does.
type stream struct {
	file *os.File
	mu   sync.Mutex
	text bytes.Buffer
}

func listen(path string) (*stream, error) {
	if !strings.HasSuffix(path, ".fifo") { // such as /dev/null
		return &stream{}, nil
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	return reopen(path)
}

func reopen(path string) (*stream, error) {
	// Open for writing too, so that it never ends before we do.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &stream{file: file}
	go func() { _, _ = io.Copy(s, file) }()
	return s, nil
}

// settle waits until everything that was written so far has been read. Nobody else may write any more.
func (s *stream) settle() {
	if s.file == nil {
		return
	}
	if _, err := s.file.Write([]byte{0}); err != nil {
		return
	}
	Eventually(10*time.Second, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		done := bytes.HasSuffix(s.text.Bytes(), []byte{0})
		if done {
			s.text.Truncate(s.text.Len() - 1)
		}
		return done
	})
}

func (s *stream) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Cgroups are the directories of the task's cgroup.
func (t *Task) Cgroups() []string { return t.cgroups }

// Relisten stops reading the task's standard output and begins again, as an agent does whose log process has died.
func (t *Task) Relisten(tb testing.TB) {
	tb.Helper()
	t.stdout.close()
	again, err := reopen(t.Config.StdoutPath)
	if err != nil {
		tb.Fatal(err)
	}
	t.stdout = again
}
