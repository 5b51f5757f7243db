package quota

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Task is what Watch watches.
type Task struct {
	Limit Amount
	// Disk holds the task's writable layer.
	Disk *os.File
	// Project, when set, is the project that Disk belongs to, and that the kernel holds to the limit.
	Project uint32
	// Counted are more directories that count.
	Counted []*os.File
	// PIDs lists the task's processes; nil when they are not to be looked at.
	PIDs func() ([]int, error)
	// Root is a directory in the task's own view of Disk's files, whose device number their open files have; may be nil.
	Root *os.File
}

// nearPercent is how much of a limit is worth a warning.
const nearPercent = 80

// maxFailures is how many measurements in a row may fail.
const maxFailures = 20

// lowPriority is the nice value of a measuring thread.
const lowPriority = 10

// Watch measures until the context ends, or until the task has exceeded its limit: it returns by how much then. What the
// kernel enforces is only looked at for the sake of near, which is called once for each time that the task comes near
// its limit; directories that are not on its file system are held to the limit by themselves. An error says that
// something could not be measured several times in a row, and that nothing is watched any more.
func Watch(ctx context.Context, t Task, near func(Amount)) (Amount, error) {
	trees := t.trees()
	pace := pace{limit: t.Limit, enforced: len(trees) == 0}
	warned, failures := false, 0
	for {
		wait := pace.wait()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return Amount{}, ctx.Err()
		case <-timer.C:
		}
		free := freeOn(trees)
		if !pace.due(time.Now(), free) {
			continue
		}
		began := time.Now()
		enforced, used, err := t.measure(ctx, trees)
		if failures++; err != nil && failures < maxFailures && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return used, err
		}
		failures = 0
		pace.measured(began, time.Since(began), free, used)
		if used.Exceeds(t.Limit) {
			return used, nil
		}
		if enforced.reaches(nearPercent, t.Limit) {
			used = enforced
		}
		is := used.reaches(nearPercent, t.Limit)
		if is && !warned {
			near(used)
		}
		warned = is || warned && used.reaches(nearPercent-10, t.Limit)
	}
}

// trees are the directories that have to be walked, because no project counts them.
func (t Task) trees() []*os.File {
	var list []*os.File
	if t.Project == 0 {
		list = append(list, t.Disk)
	}
	for _, dir := range t.Counted {
		if t.Project == 0 || !inProject(dir, t.Project, t.Disk) {
			list = append(list, dir)
		}
	}
	return list
}

// inProject reports whether a directory is counted by a project, on the same file system as another directory.
func inProject(dir *os.File, id uint32, other *os.File) bool {
	var a attributes
	var one, two unix.Stat_t
	return ioctl(dir, getAttributes, &a) == nil && a.Project == id && a.Flags&inheritFlag != 0 &&
		unix.Fstat(int(dir.Fd()), &one) == nil && unix.Fstat(int(other.Fd()), &two) == nil && one.Dev == two.Dev
}

// measure returns what the kernel counts, and what was walked: on a thread of its own, which has a low priority and ends
// with the walk.
func (t Task) measure(ctx context.Context, trees []*os.File) (enforced, walked Amount, err error) {
	if t.Project != 0 {
		if enforced, _, err = usage(t.Disk, t.Project); err != nil {
			return enforced, walked, err
		}
	}
	if len(trees) == 0 {
		return enforced, walked, nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowPriority)
		walked, err = t.walk(ctx, trees)
	}()
	<-done
	return enforced, walked, err
}

func (t Task) walk(ctx context.Context, trees []*os.File) (Amount, error) {
	var sum Amount
	for _, tree := range trees {
		more, err := Measure(ctx, tree, t.Limit)
		if err != nil {
			return sum, err
		}
		sum = sum.plus(more)
	}
	if t.PIDs == nil {
		return sum, nil
	}
	pids, err := t.PIDs()
	if err != nil {
		return sum, fmt.Errorf("measure open files: %w", err)
	}
	return sum.plus(deleted(ctx, pids, devices(t.Root, trees))), nil
}

func devices(root *os.File, trees []*os.File) map[uint64]bool {
	set := map[uint64]bool{}
	for _, dir := range trees {
		addDevice(set, dir)
	}
	addDevice(set, root)
	return set
}

func addDevice(set map[uint64]bool, dir *os.File) {
	var stat unix.Stat_t
	if dir != nil && unix.Fstat(int(dir.Fd()), &stat) == nil {
		set[stat.Dev] = true
	}
}

// freeOn returns what is free on the file systems of some directories, one that holds several of them counted as often:
// only the difference to an earlier answer matters.
func freeOn(dirs []*os.File) Amount {
	var sum Amount
	for _, dir := range dirs {
		var stat unix.Statfs_t
		if unix.Fstatfs(int(dir.Fd()), &stat) == nil {
			sum = sum.plus(Amount{Bytes: int64(stat.Bfree) * stat.Bsize, Inodes: int64(stat.Ffree)}) //nolint:gosec // no disk is that large
		}
	}
	return sum
}
