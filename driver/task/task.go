// Package task runs one node's tasks: it turns what a jobspec or a run info asks for into a container, starts it under
// a shim of its own, and finds, stops and clears it again, whoever died in between.
//
// Call New once per plugin process, then Start, Recover, Wait, Stop, Signal, Exec, Meter and Destroy by Nomad's task id.
// A Manager keeps nothing in memory that it could not learn again from its state directory: Recover and Destroy work for
// ids that this process never started. Starting is a list of steps, each with its undo, so that a failed start leaves
// no mount, cgroup, process, lease or directory behind.
//
// What is decided without touching the system (which layers, which environment, which limits, which mounts) is decided
// in pure functions over gathered facts, in Assemble and below it.
package task

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"time"

	"drover/driver"
)

// Request is one task that Nomad wants started, in our words.
type Request struct {
	// ID is Nomad's task id, new for each start.
	ID       string
	AllocID  string
	TaskName string
	JobID    string
	// Names are what else there is to label the task with.
	Names map[string]string
	// AllocDir is the allocation's directory; the task's own is AllocDir/TaskName.
	AllocDir string
	// Env is the environment that Nomad made.
	Env  map[string]string
	Wish Wish
	// Resources are the limits that the scheduler granted.
	Resources Resources
	// Ports are the allocation's port mappings in the jobspec's order.
	Ports []Port
	// Mounts are volume mounts; targets are relative to the container's root.
	Mounts []driver.Mount
	// Devices and DeviceEnv are what Nomad's device plugins give.
	Devices   []driver.Device
	DeviceEnv map[string]string
	// NetNS is the path of the group's network namespace; empty for the host's.
	NetNS string
	// DNS is what the jobspec or CNI says about name resolution; nil for the host's own.
	DNS *DNS
	// HostIP is the node's address for tasks without a port.
	HostIP string
	Stdout string
	Stderr string
}

// Resources are what Nomad granted to a task.
type Resources struct {
	MemoryMB int64
	// MemoryMaxMB is 0 when memory is not oversubscribed and -1 when there is no upper limit.
	MemoryMaxMB int64
	CPUShares   int64
	// CPUFraction is the part of the node's whole compute that the task was granted.
	CPUFraction float64
	// Cores lists reserved cores, such as "0-1,4".
	Cores string
	// CpusetCgroup is the absolute path that Nomad calls the task's cpuset cgroup.
	CpusetCgroup string
}

// Port is one port mapping of an allocation.
type Port struct {
	Label string
	// Host is the port on the node, Container the port in the task's network namespace.
	Host      int
	Container int
	HostIP    string
}

// DNS is a resolver configuration.
type DNS struct {
	Servers  []string
	Searches []string
	Options  []string
}

// Event is something that happened to a task and that a person or the bridge wants to know.
type Event struct {
	TaskID      string
	AllocID     string
	TaskName    string
	Time        time.Time
	Message     string
	Annotations map[string]string
}

var unsafeInID = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// ContainerID returns the name that a task's container and state directory have on this node. It is a function of
// Nomad's task id (ALLOCATION/TASK/START) alone, so that a task can be found without any memory of its start.
func ContainerID(taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	alloc, rest, _ := strings.Cut(taskID, "/")
	name := rest
	if end := strings.LastIndexByte(rest, '/'); end >= 0 {
		name = rest[:end]
	}
	parts := []string{clip(unsafeInID.ReplaceAllString(alloc, "_"), 8), clip(unsafeInID.ReplaceAllString(name, "_"), 20)}
	return "t-" + strings.Join(parts, "-") + "-" + hex.EncodeToString(sum[:6])
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
