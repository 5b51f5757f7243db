package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/quota"
	"drover/driver/shim"
)

// maxReason bounds driver.Exit.Reason.
const maxReason = 1024

// limitDisk makes the directory of the container's own files part of its project, before there is anything in it.
func (k *keeper) limitDisk() error {
	d := k.wish.Disk
	if d.Project == 0 {
		return nil
	}
	dir := k.dir.Disk()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for the container's files: %w", err)
	}
	if err := quota.Assign(dir, d.Project); err != nil {
		return err
	}
	return quota.SetLimit(dir, d.Project, quota.LimitOf(d))
}

// adoptCounted does the same with the directories that count beside it, where they are on the same file system.
func (k *keeper) adoptCounted() error {
	d := k.wish.Disk
	if d.Project == 0 {
		return nil
	}
	counted, err := openCounted(k.wish.Mounts)
	defer closeAll(counted)
	for _, dir := range counted {
		if err == nil {
			err = quota.Adopt(context.Background(), dir, d.Project, quota.LimitOf(d), k.dir.Disk())
		}
	}
	return err
}

// openCounted opens the sources of mounts that count against the limit.
func openCounted(mounts []driver.Mount) ([]*os.File, error) {
	var list []*os.File
	for _, m := range mounts {
		if !m.Counted {
			continue
		}
		dir, err := os.Open(m.Source)
		if err != nil {
			return list, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		list = append(list, dir)
	}
	return list, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}

// watchDisk begins to measure what the task writes, and returns a function that ends that.
func (k *keeper) watchDisk(ctx context.Context) (end func()) {
	limit := quota.LimitOf(k.wish.Disk)
	if limit == (quota.Amount{}) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := k.measureDisk(ctx, limit); err != nil && ctx.Err() == nil {
			k.log.Error("the task's use of disk is not measured any more", "error", err)
			k.emit(shim.Event{Phase: driver.PhaseDisk, Message: "Use of disk is not measured any more: " + err.Error()})
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (k *keeper) measureDisk(ctx context.Context, limit quota.Amount) error {
	disk, err := os.Open(k.dir.Disk())
	if err != nil {
		return fmt.Errorf("measure the container's files: %w", err)
	}
	defer func() { _ = disk.Close() }()
	counted, err := openCounted(k.wish.Mounts)
	defer closeAll(counted)
	if err != nil {
		return err
	}
	root, err := os.Open(filepath.Join(string(k.dir), "rootfs")) // the overlay, whose device open files have
	if err != nil {
		return fmt.Errorf("measure the container's files: %w", err)
	}
	defer func() { _ = root.Close() }()
	used, err := quota.Watch(ctx, quota.Task{
		Limit: limit, Disk: disk, Project: k.wish.Disk.Project, Counted: counted, PIDs: k.group.PIDs, Root: root,
	}, func(used quota.Amount) {
		k.emit(diskEvent(used, limit, "Disk quota nearly used up: "+used.Of(limit)))
	})
	if err != nil {
		return err
	}
	why := quota.ErrTooMuch.Error() + ": used " + used.Of(limit)
	k.log.Warn("killing the task", "cause", why)
	k.mu.Lock()
	k.tooMuch = why
	k.mu.Unlock()
	k.emit(diskEvent(used, limit, "Disk quota exceeded: used "+used.Of(limit)+"; the task is killed"))
	if k.wish.Work == nil {
		// First, and the rest with it: it might end otherwise, and tell so, because one of the others did.
		if err := k.init.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			k.log.Warn("cannot kill process 1", "error", err)
		}
	}
	return k.killAll()
}

func diskEvent(used, limit quota.Amount, message string) shim.Event {
	notes := map[string]string{}
	if limit.Bytes > 0 {
		notes[driver.AnnotationDiskUsed] = strconv.FormatInt(used.Bytes, 10)
		notes[driver.AnnotationDiskLimit] = strconv.FormatInt(limit.Bytes, 10)
	}
	if limit.Inodes > 0 {
		notes[driver.AnnotationFilesUsed] = strconv.FormatInt(used.Inodes, 10)
		notes[driver.AnnotationFilesLimit] = strconv.FormatInt(limit.Inodes, 10)
	}
	return shim.Event{Phase: driver.PhaseDisk, Message: message, Annotations: notes}
}

// blameDisk says in the exit that the task was killed for what it had written.
func (k *keeper) blameDisk() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tooMuch == "" || k.exit.Code == 0 {
		return
	}
	k.exit.DiskExceeded = k.tooMuch
	if k.wish.Work == nil {
		return
	}
	if k.exit.Reason == "" {
		k.exit.Reason = "Exited with status " + strconv.Itoa(k.exit.Code)
	}
	cause := " (" + k.tooMuch + ")"
	if room := maxReason - len(cause); len(k.exit.Reason) > room {
		k.exit.Reason = strings.ToValidUTF8(k.exit.Reason[:room], "")
	}
	k.exit.Reason += cause
}
