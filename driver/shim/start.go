package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"drover/driver"
)

// ready is what a starting shim reports on the pipe that it inherits as descriptor 3.
type ready struct {
	Error string `json:"error,omitempty"`
}

// readyFD is that descriptor.
const readyFD = 3

// Start writes the container to dir, which it makes, and spawns a shim for it. It returns when the container's process
// 1 runs, or with the reason that the shim gave; nothing is left but the directory then, with shim.log in it, and
// Destroy removes that.
func Start(ctx context.Context, shimPath, dir string, c driver.Container) (*Client, error) {
	if err := validID(c.ID); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil { // mounts below it must be reachable from a user namespace
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	for _, name := range []string{shimFile, initFile, exitFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("start container %s: %s belongs to an earlier start; it is to be destroyed first", c.ID, dir)
		}
	}
	if err := writeJSON(dir, containerFile, c); err != nil {
		return nil, err
	}
	if err := spawn(ctx, shimPath, dir, c); err != nil {
		return nil, fmt.Errorf("start container %s: %w", c.ID, errors.Join(err, abandon(dir)))
	}
	return Connect(dir)
}

func spawn(ctx context.Context, shimPath, dir string, c driver.Container) error {
	_, group, err := Groups(c)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open shim log: %w", err)
	}
	defer func() { _ = log.Close() }()
	report, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make report pipe: %w", err)
	}
	defer func() { _ = report.Close() }()
	// The context must not end the shim once it runs, so it is no CommandContext.
	cmd := exec.Command(shimPath, "run", dir) //nolint:noctx // see above
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return fmt.Errorf("start shim %s: %w", shimPath, err)
	}
	moved := make(chan struct{})
	go func() {
		// The shim does so itself, and tells when it cannot. But it takes the kernel some ten milliseconds to prepare for it,
		// and those begin here.
		_ = group.Join(cmd.Process.Pid)
		close(moved)
		_ = cmd.Wait() // its exit is read from exit.json
	}()
	defer func() { <-moved }() // lest it make a group that was removed
	defer context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(time.Unix(1, 0)) })()
	if err := awaitReady(report, dir); err != nil {
		_ = cmd.Process.Kill()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return nil
}

func awaitReady(report io.Reader, dir string) error {
	var r ready
	err := json.NewDecoder(io.LimitReader(report, 64<<10)).Decode(&r)
	if err != nil {
		return fmt.Errorf("the shim ended before the container ran: %s", logTail(dir))
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	return nil
}

// logTail returns the last lines of the shim's log.
func logTail(dir string) string {
	file, err := os.Open(filepath.Join(dir, logFile))
	if err != nil {
		return "it left no log"
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.Size() > 2048 {
		_, _ = file.Seek(-2048, io.SeekEnd)
	}
	text, err := io.ReadAll(io.LimitReader(file, 2048))
	if err != nil || len(text) == 0 {
		return "it left no log"
	}
	return strings.TrimSpace(string(text))
}

func validID(id string) error {
	ok := id != "" && len(id) <= 200 && !strings.HasPrefix(id, ".")
	for _, r := range id {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r))
	}
	if !ok {
		return fmt.Errorf("container id %q: want up to 200 of A-Z a-z 0-9 _ . -, not beginning with a dot", id)
	}
	return nil
}
