package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"drover/driver/quota"
)

// guardDisk measures what an orphan writes, as its shim did, and kills it when that is too much. The function that it
// returns ends that, and tells why the orphan was killed, if it was.
func (c *Client) guardDisk(ctx context.Context) (end func() (why string)) {
	limit := quota.LimitOf(c.container.Disk)
	if limit == (quota.Amount{}) {
		return func() string { return "" }
	}
	ctx, cancel := context.WithCancel(ctx)
	why := make(chan string, 1)
	go func() {
		// An error leaves the orphan unmeasured: there is no log of a task that this process could tell it to.
		used, err := c.measureDisk(ctx, limit)
		if err != nil {
			why <- ""
			return
		}
		why <- quota.ErrTooMuch.Error() + ": used " + used.Of(limit)
		deadline, stop := context.WithTimeout(context.Background(), killWait)
		defer stop()
		_ = c.group.Kill(deadline) // the orphan's end is what the caller waits for
	}()
	return func() string {
		cancel()
		return <-why
	}
}

func (c *Client) measureDisk(ctx context.Context, limit quota.Amount) (quota.Amount, error) {
	disk, err := os.Open(Dir(c.dir).Disk())
	if err != nil {
		return quota.Amount{}, err
	}
	defer func() { _ = disk.Close() }()
	task := quota.Task{Limit: limit, Disk: disk, Project: c.container.Disk.Project, PIDs: c.group.PIDs}
	for _, m := range c.container.Mounts {
		if !m.Counted {
			continue
		}
		dir, err := openCounted(m.Base, m.Source)
		if err != nil {
			return quota.Amount{}, err
		}
		defer func() { _ = dir.Close() }() //nolint:gocritic // there are one or two
		task.Counted = append(task.Counted, dir)
	}
	// The task's own view of its files, whose device number its open files have, is what process 1 has as root.
	if root, err := os.Open(fmt.Sprintf("/proc/%d/root", c.init.PID)); err == nil {
		defer func() { _ = root.Close() }()
		task.Root = root
	}
	return quota.Watch(ctx, task, func(quota.Amount) {})
}

// openCounted opens a directory of the host, and does not leave base on the way.
func openCounted(base, source string) (*os.File, error) {
	if base == "" {
		return os.Open(source)
	}
	name, err := filepath.Rel(base, source)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	return root.Open(name)
}
