package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Versions of the agents that Drover is tested with; e2e/tools builds them.
const (
	NomadVersion  = "1.11.3"
	ConsulVersion = "1.22.2"
)

// Find returns the path of program nomad or consul: the one that make built into the user's cache, else one on PATH
// whose minor version is the tested one.
func Find(name string) (string, error) {
	version := map[string]string{"nomad": NomadVersion, "consul": ConsulVersion}[name]
	if version == "" {
		return "", fmt.Errorf("agent: no program %q is known", name)
	}
	if cache, err := CacheDir(); err == nil {
		path := filepath.Join(cache, "bin", name+"-"+version)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("agent: %s %s is neither built nor on PATH: run `make agents`", name, version)
	}
	out, err := exec.CommandContext(context.Background(), path, "version").Output()
	if err != nil {
		return "", fmt.Errorf("agent: %s version: %w", path, err)
	}
	minor := version[:strings.LastIndex(version, ".")+1]
	if first, _, _ := strings.Cut(string(out), "\n"); !strings.Contains(first, " v"+minor) {
		return "", fmt.Errorf("agent: %s is %s, but %sx is needed: run `make agents`", path, first, minor)
	}
	return path, nil
}

// CacheDir is where slow things are kept between runs: $XDG_CACHE_HOME/drover, else ~/.cache/drover.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("agent: %w", err)
	}
	return filepath.Join(dir, "drover"), nil
}

// process is an agent that runs, its log, and its end.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a program with a clean environment, in a process group of its own so that a terminal's Ctrl-C reaches
// only us.
func start(path, dir, logName string, args ...string) (*process, error) {
	logPath := filepath.Join(dir, logName)
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	defer func() { _ = log.Close() }()                              // the child has its own
	cmd := exec.CommandContext(context.Background(), path, args...) // ended by stop and kill, not by a context
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("agent: start %s: %w", path, err)
	}
	p := &process{name: filepath.Base(path), log: logPath, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended does not matter; that it ended does
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// await polls until ready says so, the process ends, or startTimeout passes.
func (p *process) await(ctx context.Context, otherwise string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		ok, err := ready(ctx)
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("agent: %s ended: %s", p.name, p.lastLines())
		case <-ctx.Done():
			return fmt.Errorf("agent: %s: %w", otherwise, errors.Join(ctx.Err(), last))
		}
	}
}

// stop sends SIGINT and waits; when ctx ends first it sends SIGKILL.
func (p *process) stop(ctx context.Context) error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("agent: stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("agent: %s did not stop: %w", p.name, ctx.Err()), p.kill())
	}
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("agent: kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// lastLines returns the end of the log, where an agent says why it gave up.
func (p *process) lastLines() string {
	file, err := os.Open(p.log)
	if err != nil {
		return "its log cannot be read"
	}
	defer func() { _ = file.Close() }() // read only
	var lines []string
	for scan := bufio.NewScanner(file); scan.Scan(); {
		lines = append(lines, scan.Text())
	}
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// unmountBelow unmounts everything below dir, deepest first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	var errs []error
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("agent: unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}
