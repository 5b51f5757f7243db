package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
)

// noLimit is from where on a v1 memory limit means none.
const noLimit = 1 << 62

// Limits reads how much memory, in bytes, and how many processes the group may have; 0 is without limit.
func (g Group) Limits() (memory, pids uint64, err error) {
	file := "memory.max"
	if !g.v2 {
		file = "memory.limit_in_bytes"
	}
	if memory, err = readNumber(filepath.Join(g.dir("memory"), file)); err != nil {
		return 0, 0, err
	}
	if memory >= noLimit {
		memory = 0
	}
	pids, err = readNumber(filepath.Join(g.dir("pids"), "pids.max"))
	return memory, pids, err
}

func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return parse(bytes.TrimSpace(text))
}
