package quota

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Files that have no name any more take up space as long as somebody holds them. No walk finds them; the processes'
// lists of open files and of mappings do.

// deleted returns what the nameless files on some devices take up that processes hold.
func deleted(ctx context.Context, pids []int, devices map[uint64]bool) Amount {
	var sum Amount
	seen := map[[2]uint64]bool{}
	count := func(path string) {
		var stat unix.Stat_t
		if unix.Stat(path, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink > 0 || !devices[stat.Dev] {
			return
		}
		if key := [2]uint64{stat.Dev, stat.Ino}; !seen[key] {
			seen[key] = true
			sum = sum.plus(Amount{Bytes: stat.Blocks * statBlock, Inodes: 1})
		}
	}
	for _, pid := range pids {
		if ctx.Err() != nil {
			break
		}
		dir := fmt.Sprintf("/proc/%d", pid)
		openDeleted(filepath.Join(dir, "fd"), count)
		mappedDeleted(dir, count)
	}
	return sum
}

// openDeleted calls count for the open files of a process that have lost their name.
func openDeleted(dir string, count func(string)) {
	handle, err := os.Open(dir)
	if err != nil {
		return // the process has gone
	}
	defer func() { _ = handle.Close() }()
	for {
		names, err := handle.Readdirnames(256)
		for _, name := range names {
			path := dir + "/" + name
			if target, err := os.Readlink(path); err == nil && strings.HasSuffix(target, " (deleted)") {
				count(path)
			}
		}
		if err != nil || len(names) == 0 {
			return
		}
	}
}

// mappedDeleted calls count for the files that a process has mapped and that have lost their name.
func mappedDeleted(dir string, count func(string)) {
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		return
	}
	defer func() { _ = maps.Close() }()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		if line := lines.Text(); strings.HasSuffix(line, " (deleted)") {
			span, _, _ := strings.Cut(line, " ")
			count(dir + "/map_files/" + span)
		}
	}
}
