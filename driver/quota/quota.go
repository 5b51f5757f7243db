// Package quota limits how much a task writes to the host's disks.
//
// Where the state directory is on a file system that enforces project quotas (ext4 made with -O quota,project or xfs,
// mounted with prjquota), the kernel does it: Detect says so, Assign makes a directory and all that will be below it
// part of a project, SetLimit gives the project its limit, Clear takes it back. A write past the limit fails in the
// container with EDQUOT or ENOSPC, and nobody has to be stopped.
//
// Elsewhere Watch measures what is there, and tells when it is more than the limit; the task is to be stopped then. A
// task can write more than its limit in the time between two looks. Watch looks more often the faster the file system
// fills and the less room is left, and spends at most a twentieth of a processor on it, or a quarter of one while the file
// system loses as much as the task still may write.
//
// What is measured is blocks, not sizes: a hole costs nothing. A file with many names counts once, and files that have
// lost their name count while a process of the task holds them open or mapped. Trees are walked without following a
// link, and by the file system's own handles: neither depth nor a rename meanwhile leads anywhere else.
package quota

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"drover/driver"
)

// Amount is an amount of disk space. As a limit, a zero part is none.
type Amount struct {
	Bytes, Inodes int64
}

// LimitOf returns a task's limit.
func LimitOf(d driver.Disk) Amount { return Amount{Bytes: d.Bytes, Inodes: d.Inodes} }

// Exceeds reports whether a use is more than a limit allows.
func (a Amount) Exceeds(limit Amount) bool {
	return limit.Bytes > 0 && a.Bytes > limit.Bytes || limit.Inodes > 0 && a.Inodes > limit.Inodes
}

// reaches reports whether a use is at least some percent of a limit.
func (a Amount) reaches(percent int64, limit Amount) bool {
	return limit.Bytes > 0 && a.Bytes >= limit.Bytes/100*percent || limit.Inodes > 0 && a.Inodes >= limit.Inodes*percent/100
}

func (a Amount) plus(b Amount) Amount {
	return Amount{Bytes: a.Bytes + b.Bytes, Inodes: a.Inodes + b.Inodes}
}

// room is what is left of a limit; of none there is always more than enough.
func (a Amount) room(limit Amount) Amount {
	left := Amount{Bytes: math.MaxInt64, Inodes: math.MaxInt64}
	if limit.Bytes > 0 {
		left.Bytes = max(limit.Bytes-a.Bytes, 0)
	}
	if limit.Inodes > 0 {
		left.Inodes = max(limit.Inodes-a.Inodes, 0)
	}
	return left
}

// Of says for people how much of a limit is used: of bytes, or of files where those are nearer to their limit.
func (a Amount) Of(limit Amount) string {
	files := limit.Inodes > 0 && (limit.Bytes == 0 ||
		float64(a.Inodes)/float64(limit.Inodes) > float64(a.Bytes)/float64(limit.Bytes))
	if files {
		return fmt.Sprintf("%d of %d files", a.Inodes, limit.Inodes)
	}
	return FormatSize(a.Bytes) + " of " + FormatSize(limit.Bytes)
}

// MaxBytes and MaxInodes are the largest limits that make sense of what somebody wrote.
const (
	MaxBytes  = int64(1) << 50
	MaxInodes = int64(math.MaxUint32)
)

// FormatSize writes a size for people.
func FormatSize(bytes int64) string {
	value, units := float64(bytes), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	n := 0
	for value >= 1024 && n < len(units)-1 {
		value, n = value/1024, n+1
	}
	text := strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0")
	return text + " " + units[n]
}
