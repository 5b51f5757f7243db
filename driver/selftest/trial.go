package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Key is what a verdict depends on: while none of it changes, there is no reason to try again. A reboot changes it.
type Key struct {
	Boot    string `json:"boot"`
	Kernel  string `json:"kernel"`
	Cgroup  string `json:"cgroup"`
	Version string `json:"version"`
	// ShimFile is the identity of the shim's file, so that a new build of the same version counts.
	ShimFile string  `json:"shim_file"`
	Options  Options `json:"options"`
}

// Verdict is what is known of this node. Settled is false while nothing is.
type Verdict struct {
	Settled bool
	Result  Result
	// Cause is why no container could be run; empty when one could.
	Cause string
}

// Trial runs self-tests when there is reason to, and remembers the last verdict. A success is remembered on disk too: a
// plugin that is restarted under running tasks says at once that the node is well. A failure counts only when it comes
// twice in a row, and is tried again after a while.
type Trial struct {
	// Run is Run; tests put another in its place.
	Run func(ctx context.Context, o Options) (Result, error)
	Log *slog.Logger

	mu      sync.Mutex
	key     Key
	known   bool // key was set
	verdict Verdict
	good    bool // verdict was reached with key
	running bool
	fails   int
	next    time.Time // no try before
	changed chan struct{}
}

const (
	confirmations = 2
	confirmAfter  = time.Second
	firstBackoff  = 30 * time.Second
	lastBackoff   = 10 * time.Minute
)

// Verdict returns what is known, and starts a self-test when that is out of date. A verdict that was reached with
// another key stands until there is a new one.
func (t *Trial) Verdict(ctx context.Context, key Key) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known || t.key != key {
		t.key, t.known = key, true
		t.good, t.fails, t.next = false, 0, time.Time{}
		if result, ok := recall(key); ok {
			t.verdict, t.good = Verdict{Settled: true, Result: result}, true
		}
	}
	if !t.good && !t.running && !time.Now().Before(t.next) {
		t.running = true
		go t.try(ctx, key)
	}
	return t.verdict
}

// Changed gives a value when a self-test has ended.
func (t *Trial) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.signal()
}

func (t *Trial) signal() chan struct{} {
	if t.changed == nil {
		t.changed = make(chan struct{}, 1)
	}
	return t.changed
}

func (t *Trial) try(ctx context.Context, key Key) {
	result, err := t.attempts(ctx, key.Options)
	if err == nil {
		if keepErr := remember(key, result); keepErr != nil {
			t.Log.Warn("the self-test will be run again at the next start", "error", keepErr)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	if ctx.Err() != nil || t.key != key { // the caller asks again
		return
	}
	t.verdict = Verdict{Settled: true, Result: result}
	if t.good = err == nil; err != nil {
		t.verdict.Cause = oneLine(err)
		t.next = time.Now().Add(min(firstBackoff<<min(t.fails, 10), lastBackoff))
		t.fails++
	}
	select {
	case t.signal() <- struct{}{}:
	default:
	}
}

// attempts runs until it succeeds or the failure is confirmed.
func (t *Trial) attempts(ctx context.Context, o Options) (result Result, err error) {
	unlock, err := lock(ctx, o.StateDir)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	for n := range confirmations {
		if n > 0 {
			t.Log.Info("the self-test failed and is run again", "error", err)
			select {
			case <-ctx.Done():
				return result, ctx.Err()
			case <-time.After(confirmAfter):
			}
		}
		if result, err = t.Run(ctx, o); err == nil || ctx.Err() != nil {
			return result, err
		}
	}
	return result, err
}

// lock keeps the self-test of another process of this plugin out: an agent that dies leaves its plugin running.
func lock(ctx context.Context, stateDir string) (unlock func(), err error) {
	if err := os.MkdirAll(stateDir, 0o711); err != nil {
		return nil, fmt.Errorf("make state_dir: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(stateDir, "self-test.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the self-test: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*Limit)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("lock the self-test: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// memory is the file in which a success is kept.
type memory struct {
	Key    Key    `json:"key"`
	Result Result `json:"result"`
}

func memoryFile(stateDir string) string { return filepath.Join(stateDir, "self-test.json") }

func recall(key Key) (Result, bool) {
	raw, err := os.ReadFile(memoryFile(key.Options.StateDir))
	var m memory
	if err != nil || json.Unmarshal(raw, &m) != nil || m.Key != key {
		return Result{}, false
	}
	return m.Result, true
}

func remember(key Key, result Result) error {
	raw, err := json.Marshal(memory{Key: key, Result: result})
	if err != nil {
		return fmt.Errorf("remember the self-test: %w", err)
	}
	path := memoryFile(key.Options.StateDir)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return fmt.Errorf("remember the self-test: %w", err)
	}
	return os.Rename(path+".new", path)
}

// stamps are times in the shim's log: one failure is to have one text, or Nomad would tell the node's state anew each time.
var stamps = regexp.MustCompile(`time=\S+ `)

func oneLine(err error) string {
	return stamps.ReplaceAllString(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "), "")
}
