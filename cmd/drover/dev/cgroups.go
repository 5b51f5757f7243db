package dev

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Cgroups lists the cgroups that agents and shims make on a machine once, for all of theirs to be below.
func Cgroups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, name := range []string{"nomad", "nomad.slice", "drover", "drover-shims"} {
			there, err := filepath.Glob(filepath.Join(pattern, name))
			if err != nil {
				continue // the patterns above are well-formed
			}
			found = append(found, there...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found) // hierarchies have several names
}

// Others tells whether agents or tasks run on this machine that are not ours; then its cgroups may be theirs.
func Others() bool {
	processes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(processes, func(exe string) bool {
		program, err := os.Readlink(exe)
		name := filepath.Base(program)
		return err == nil && (strings.HasPrefix(name, "nomad") || strings.HasPrefix(name, "drover-shim"))
	})
}

// removeCgroups removes the cgroups that were not there before and that nobody uses.
func removeCgroups(before []string) error {
	if Others() {
		return nil
	}
	var failures []error
	for _, path := range Cgroups() {
		if !slices.Contains(before, path) {
			failures = append(failures, removeTree(path))
		}
	}
	return errors.Join(failures...)
}

// removeTree removes a cgroup with those below it; one with processes in it stays, and is an error.
func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	var failures []error
	for _, entry := range entries {
		if entry.IsDir() {
			failures = append(failures, removeTree(filepath.Join(path, entry.Name())))
		}
	}
	return errors.Join(append(failures, os.Remove(path))...)
}
