package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"drover/driver"
	"drover/driver/image"
	"drover/driver/shim"
)

// start is one start in progress: the facts found so far.
type start struct {
	m     *Manager
	facts facts
	// root says where the root file system comes from.
	root rootRef
	auth *image.Auth
	// leased is how many layers were leased while they were pulled.
	leased    int
	container driver.Container
	client    *shim.Client
	began     time.Time
}

// step is a part of a start, and what takes it back when a later one fails.
type step struct {
	name string
	do   func(ctx context.Context) error
	undo func() error
}

// Start starts a task and returns what Nomad should remember of it. When it fails, it leaves nothing behind, and the
// error names the thing and the cure; Temporary tells whether to try again.
func (m *Manager) Start(req Request) (Record, error) {
	if err := m.prepare(); err != nil {
		return Record{}, err
	}
	ctx, cancel := context.WithCancel(m.life)
	defer cancel()
	id := ContainerID(req.ID)
	defer m.starts(id)()
	s := &start{m: m, began: time.Now(), facts: facts{
		req: req, node: m.node, id: id, guid: uuid.NewString(), cpus: runtime.NumCPU(),
	}}
	if err := s.run(ctx, s.steps()); err != nil {
		return Record{}, m.explainFull(err)
	}
	task := &Task{client: s.client, told: make(chan struct{}), Record: Record{
		TaskID: req.ID, AllocID: req.AllocID, TaskName: req.TaskName, ContainerID: id, InstanceGUID: s.facts.guid,
		Address: s.facts.ownIP, StopSignal: s.facts.image.StopSignal, StartedAt: s.began,
		Labels: s.facts.labels(),
	}}
	m.follow(task)
	return task.Record, nil
}

func (s *start) steps() []step {
	id := s.facts.id
	return []step{
		{name: "check", do: s.check},
		{name: "clear leftovers", do: func(ctx context.Context) error { return s.m.wipe(ctx, id) }},
		{name: "read run info", do: s.readRunInfo},
		{name: "read profiles", do: s.readProfiles},
		{name: "reserve user ids", do: s.reserveIDs, undo: func() error { return s.m.pool.Release(id) }},
		{name: "root file system", do: s.prepareRoot, undo: func() error { return s.m.store.Release(id) }},
		{name: "fetch", do: s.fetchLayers},
		{name: "lease", do: s.lease},
		{name: "disk", do: s.reserveDisk, undo: func() error { return s.m.projects.Release(id) }},
		{name: "assemble", do: s.assemble},
		{name: "start", do: s.start, undo: s.destroy},
	}
}

// run does the steps in order; when one fails it undoes it and those before it, in reverse.
func (s *start) run(ctx context.Context, steps []step) error {
	for i, step := range steps {
		err := step.do(ctx)
		if err == nil {
			continue
		}
		for j := i; j >= 0; j-- {
			if steps[j].undo == nil {
				continue
			}
			if undoErr := steps[j].undo(); undoErr != nil {
				s.m.log.Warn("a failed start left something behind", "task_id", s.facts.req.ID, "step", steps[j].name, "error", undoErr)
			}
		}
		return err
	}
	return nil
}

func (s *start) check(context.Context) error {
	if err := s.facts.req.validate(); err != nil {
		return err
	}
	if err := errors.Join(s.facts.req.Wish.Validate(s.m.node), s.facts.req.checkSecurity(), s.facts.req.checkPorts()); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// validate refuses names whose directory would be another one than the task's own: that of a task named alloc is the one
// that all tasks of the allocation share.
func (r Request) validate() error {
	for _, name := range []string{r.TaskName, r.AllocID} {
		if name == "" || name == "." || name == ".." || name == sharedAlloc || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("task %q of allocation %q: a task cannot have this name", r.TaskName, r.AllocID)
		}
	}
	return nil
}

// maxRunInfoText bounds the rendered run info.
const maxRunInfoText = 16 << 20

func (s *start) readRunInfo(context.Context) error {
	if !s.facts.req.Wish.RunInfo {
		return s.chooseRoot()
	}
	text, err := readRunInfo(filepath.Join(s.facts.req.AllocDir, s.facts.req.TaskName))
	if err != nil {
		return fmt.Errorf("config: run_info: %w", err)
	}
	info, err := driver.DecodeRunInfo(text)
	if err != nil {
		return err
	}
	def, err := decodeDefinition(info)
	if err != nil {
		return err
	}
	s.m.warnIgnored(info.GUID, def.ignored)
	s.facts.info, s.facts.def = &info, def
	if s.root, err = parseRootFS(def.rootFS); err != nil {
		return err
	}
	if def.username != "" {
		s.auth = &image.Auth{Username: def.username, Password: def.password}
	}
	return nil
}

// readRunInfo reads the file through a root: a template cannot make it a link to elsewhere.
func readRunInfo(taskDir string) ([]byte, error) {
	root, err := os.OpenRoot(taskDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	file, err := root.Open(driver.RunInfoFile)
	if err != nil {
		return nil, fmt.Errorf("%w (the job's template must render it)", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxRunInfoText+1))
	if err == nil && len(text) > maxRunInfoText {
		err = fmt.Errorf("%s is larger than %d bytes", driver.RunInfoFile, maxRunInfoText)
	}
	return text, err
}

// chooseRoot reads the root file system of a hand-written job.
func (s *start) chooseRoot() error {
	wish := s.facts.req.Wish
	if wish.Auth != (Auth{}) {
		s.auth = &image.Auth{Username: wish.Auth.Username, Password: wish.Auth.Password, ServerAddress: wish.Auth.ServerAddress}
	}
	switch {
	case wish.Image != "" || wish.Pull.Load != "":
		s.root.Image = orElse(wish.Image, wish.Pull.Load)
	case filepath.IsAbs(wish.RootFS):
		dir, err := s.m.node.resolvePath("rootfs", wish.RootFS)
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		s.facts.layers = []driver.Layer{{Dir: dir}}
	default:
		s.root.Stack = wish.RootFS
	}
	return nil
}

// prepareRoot finds or pulls the layers of the stack or image.
func (s *start) prepareRoot(ctx context.Context) error {
	reference := s.root.Image
	if s.root.Stack != "" {
		stack, ok := s.m.node.Stacks[s.root.Stack]
		if !ok {
			return fmt.Errorf("this node has no stack %q; it has %s", s.root.Stack, s.m.node.stackNames())
		}
		if stack.RootFS != "" {
			return s.useDirectory(s.root.Stack, stack.RootFS)
		}
		reference = stack.Image
	}
	if reference == "" {
		return nil
	}
	return s.pullImage(ctx, reference)
}

func (s *start) useDirectory(stack, dir string) error {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return fmt.Errorf("stack %s: its rootfs %s is not a directory on this node: %w", stack, dir, errors.Join(err))
	}
	s.facts.layers = []driver.Layer{{Dir: dir}}
	return nil
}

// fetchLayers lays droplet, lifecycle and whatever else is an archive over the root file system.
func (s *start) fetchLayers(ctx context.Context) error {
	s.facts.imageLayers = len(s.facts.layers)
	list, err := s.archives()
	if err != nil {
		return err
	}
	ctx, cancel := s.m.pullContext(ctx, s.facts.req.AllocDir, s.facts.req.Wish.Pull.Timeout)
	defer cancel()
	for _, a := range list {
		began := time.Now()
		owner := a.owner
		layer, err := s.m.store.Fetch(ctx, image.Archive{
			URL: a.from, Checksum: a.checksum, Format: a.format, Prefix: a.target, UID: &owner, GID: &owner, CacheKey: a.cacheKey,
		}, s.progress("Fetching "+a.what))
		if err != nil {
			return s.m.pullError(ctx, a.what+" "+redact(a.from), fmt.Errorf("%s: %w", a.what, err))
		}
		s.facts.layers = append(s.facts.layers, layer)
		if a.done != "" {
			s.facts.done = append(s.facts.done, a.done)
		}
		s.tell(driver.PhaseFetch, began, "Fetched %s", a.what)
	}
	return nil
}

func (s *start) archives() ([]archive, error) {
	if s.facts.info != nil {
		return s.facts.def.archives(), nil
	}
	wish := s.facts.req.Wish
	if wish.Droplet == "" {
		return nil, nil
	}
	droplet := archive{
		what: "droplet", from: wish.Droplet, checksum: wish.DropletChecksum, format: formatAuto, target: vcapHome, owner: driver.VcapID,
	}
	if !isHTTP(droplet.from) {
		resolved, err := s.m.node.resolvePath("droplet", droplet.from)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		droplet.from = resolved
	}
	list := []archive{droplet}
	if s.m.node.Lifecycle != "" {
		list = append(list, archive{what: "lifecycle", from: s.m.node.Lifecycle, format: formatAuto, target: lifecycleDir})
	}
	return list, nil
}

func (s *start) lease(context.Context) error {
	if s.leased == len(s.facts.layers) {
		return nil
	}
	err := s.m.store.Lease(s.facts.id, s.facts.layers)
	if image.IsTemporary(err) {
		return temporaryError{err}
	}
	return err
}

func (s *start) assemble(context.Context) (err error) {
	req := &s.facts.req
	if req.NetNS == "" {
		s.facts.ownIP = s.facts.hostIP(req.Ports)
	} else if s.facts.ownIP, err = namespaceIP(req.NetNS); err != nil {
		return err
	}
	s.facts.resolvConf = chooseResolvConf(req.DNS, req.NetNS != "", readSmall(resolvConfPath), readSmall(resolvedPath))
	if s.m.node.TrustedCertificates != "" {
		info, err := os.Stat(s.m.node.TrustedCertificates)
		if err != nil {
			return fmt.Errorf("plugin option trusted_certificates: %w", err)
		}
		s.facts.trustedFile = info.Mode().IsRegular()
	}
	if err := s.lookForEgress(); err != nil {
		return err
	}
	if err := s.lookUpDevices(); err != nil {
		return err
	}
	s.warnExposed()
	s.container, err = assemble(s.facts)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// startTimeout bounds how long a shim may take to get its container running.
const startTimeout = 2 * time.Minute

func (s *start) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.container.Filters = filepath.Join(s.m.node.StateDir, "filters")
	s.client, err = shim.Start(ctx, s.m.node.Shim, s.m.dir(s.facts.id), s.container)
	return err
}

func (s *start) destroy() error {
	// The plugin's life may be over, and that must not leave a container behind.
	return shim.Destroy(context.WithoutCancel(s.m.life), s.m.dir(s.facts.id))
}

// tell emits an event about a finished phase of this start.
func (s *start) tell(phase string, began time.Time, format string, args ...any) {
	s.event(fmt.Sprintf(format, args...), map[string]string{
		driver.AnnotationPhase:  phase,
		driver.AnnotationMillis: strconv.FormatInt(time.Since(began).Milliseconds(), 10),
	})
}

func (s *start) event(message string, notes map[string]string) {
	req := s.facts.req
	s.m.emit(Event{
		TaskID: req.ID, AllocID: req.AllocID, TaskName: req.TaskName, Time: time.Now(), Message: message, Annotations: notes,
	})
}
