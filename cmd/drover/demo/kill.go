package demo

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// killContainer ends a container by force: it kills the process that is number 1 in the container of an allocation.
func killContainer(allocID string) error {
	for _, pid := range pids() {
		if !strings.Contains(readText(fmt.Sprintf("/proc/%d/cgroup", pid)), allocID[:allocMark]) {
			continue
		}
		if first(readText(fmt.Sprintf("/proc/%d/status", pid))) {
			process, err := os.FindProcess(pid)
			if err != nil {
				return fmt.Errorf("kill container of %s: %w", allocID, err)
			}
			return process.Signal(syscall.SIGKILL)
		}
	}
	return fmt.Errorf("no process 1 of a container of allocation %s was found", allocID)
}

// first tells from a process's status whether it is number 1 in a process namespace of its own.
func first(status string) bool {
	_, rest, found := strings.Cut(status, "NSpid:")
	if !found {
		return false
	}
	line, _, _ := strings.Cut(rest, "\n")
	numbers := strings.Fields(line)
	return len(numbers) > 1 && numbers[len(numbers)-1] == "1"
}
