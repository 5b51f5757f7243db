package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover/driver"
	"drover/driver/image"
)

// Temporary reports whether trying the same start again later may help.
func Temporary(err error) bool {
	var t temporaryError
	return errors.As(err, &t)
}

// temporaryError marks an error that has nothing to do with what was asked for.
type temporaryError struct{ error }

func (e temporaryError) Unwrap() error { return e.error }

var (
	errPullTimeout = errors.New("took longer than image_pull_timeout, an option of the task and of the plugin, allows")
	errAllocGone   = errors.New("the allocation's directory is gone")
)

// watchEvery is how often a long fetch looks whether the allocation is still there.
const watchEvery = 5 * time.Second

// pullContext bounds a fetch by the job's timeout or else the operator's, and ends it when the allocation's directory vanishes: Nomad has
// no other way to say that nobody waits any more.
func (m *Manager) pullContext(parent context.Context, allocDir string, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		timeout = m.node.PullTimeout
	}
	ctx, cancel := context.WithCancelCause(parent)
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w (%s)", errPullTimeout, timeout))
	go func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if _, err := os.Stat(allocDir); errors.Is(err, os.ErrNotExist) {
					cancel(errAllocGone)
					return
				}
			}
		}
	}()
	return ctx, func() {
		cancelTimeout()
		cancel(nil)
	}
}

// pullError says what could not be fetched and why, and marks what may be better next time.
func (m *Manager) pullError(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errPullTimeout) {
			return temporaryError{fmt.Errorf("%s: %w", what, cause)}
		}
		return fmt.Errorf("%s: %w", what, cause)
	}
	if image.IsTemporary(err) {
		return temporaryError{err}
	}
	return err
}

// Progress is told at most this often, and only once a fetch has taken so long.
const tellEvery = 10 * time.Second

// progress returns a function that tells how a fetch goes on, now and then.
func (s *start) progress(what string) func(image.Progress) {
	var mu sync.Mutex
	began := time.Now()
	last := began
	return func(p image.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < tellEvery {
			return
		}
		last = time.Now()
		s.event(what+": "+describeProgress(p, last.Sub(began)), nil)
	}
}

// describeProgress says how far a transfer has come that began a while ago, how fast it is, and when it may be done.
func describeProgress(p image.Progress, since time.Duration) string {
	const mb = 1e6
	text := ""
	if p.Layers > 0 {
		text = fmt.Sprintf("%d/%d layers, ", p.LayersDone, p.Layers)
	}
	speed := float64(p.Done) / max(since.Seconds(), 0.001)
	if p.Total <= 0 {
		return fmt.Sprintf("%s%.1f MB so far, %.1f MB/s", text, float64(p.Done)/mb, speed/mb)
	}
	text += fmt.Sprintf("%d%% of %.1f MB, %.1f MB/s", 100*p.Done/p.Total, float64(p.Total)/mb, speed/mb)
	if left := float64(p.Total-p.Done) / max(speed, 1); p.Done > 0 && left >= 1 {
		text += fmt.Sprintf(", about %s left", time.Duration(left*float64(time.Second)).Round(time.Second))
	}
	return text
}

// pullImage gets the layers of an image, from a registry or from a layout of this node.
func (s *start) pullImage(ctx context.Context, reference string) error {
	wish := s.facts.req.Wish
	ctx, cancel := s.m.pullContext(ctx, s.facts.req.AllocDir, wish.Pull.Timeout)
	defer cancel()
	began := time.Now()
	img, err := s.getImage(ctx, reference)
	if err != nil {
		return s.m.pullError(ctx, "image "+reference, err)
	}
	s.facts.layers, s.facts.image = img.Layers, img.Config
	s.leased = len(img.Layers)
	s.tellPull(reference, img, began)
	return nil
}

func (s *start) getImage(ctx context.Context, reference string) (*image.Image, error) {
	wish := s.facts.req.Wish
	progress := s.progress("Pulled image " + reference)
	if layout, ok := wish.layout(); ok && s.root.Stack == "" && s.facts.info == nil {
		var err error
		if layout.Root, layout.Path, err = s.layoutRoot(layout.Path); err != nil {
			return nil, err
		}
		defer func() { _ = layout.Root.Close() }()
		layout.Platform, layout.Owner = wish.Pull.Platform, s.facts.id
		return s.m.store.Load(ctx, layout, progress)
	}
	request := image.Request{
		Ref: reference, Auth: s.auth, AuthSoftFail: wish.Pull.AuthSoftFail, Platform: wish.Pull.Platform, Force: wish.Pull.Force, Owner: s.facts.id,
	}
	if s.facts.info == nil || s.root.Stack != "" { // the developers of apps are not to use the operator's name
		request.Login = s.m.login
	}
	return s.m.store.Pull(ctx, request, progress)
}

// login finds out who this node is for a registry.
func (m *Manager) login(ctx context.Context, registry, repository string) (*image.Auth, error) {
	user, err := m.node.Pull.Login.For(ctx, registry, repository)
	if user == nil || err != nil {
		return nil, err
	}
	return &image.Auth{
		Username: user.Username, Password: user.Password, IdentityToken: user.IdentityToken, RegistryToken: user.RegistryToken,
	}, nil
}

// layoutRoot opens the directory that a layout's path must stay in, and returns the path below it.
func (s *start) layoutRoot(path string) (*os.Root, string, error) {
	dir := filepath.Join(s.facts.req.AllocDir, s.facts.req.TaskName)
	if filepath.IsAbs(path) {
		for _, allowed := range s.m.node.AllowHostPaths {
			if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(allowed, "/")+"/"); ok {
				dir, path = allowed, rest
				break
			}
		}
	}
	root, err := os.OpenRoot(dir)
	return root, path, err
}

// tellPull tells of the phases of a pull.
func (s *start) tellPull(reference string, img *image.Image, began time.Time) {
	if img.Foreign != "" {
		s.event(fmt.Sprintf("Image %s is for %s: this node must have an emulator for it (binfmt_misc, flag F)", reference, img.Foreign), nil)
	}
	if img.Unconfirmed != nil {
		s.event(fmt.Sprintf("Starting with what %s meant before (%s): %v", reference, img.Digest, img.Unconfirmed), nil)
	}
	if img.Times.Pull > 0 {
		s.phase(driver.PhaseResolve, img.Times.Resolve, "Image "+reference+" is "+img.Digest)
		s.phase(driver.PhaseUnpack, img.Times.Unpack, "Unpacked the rest of image "+reference)
	}
	s.tell(driver.PhasePull, began, "Image %s (%s) is ready", reference, img.Digest)
}

// phase emits an event about a phase that has taken a while.
func (s *start) phase(phase string, took time.Duration, message string) {
	s.event(message, map[string]string{
		driver.AnnotationPhase: phase, driver.AnnotationMillis: strconv.FormatInt(took.Milliseconds(), 10),
	})
}
