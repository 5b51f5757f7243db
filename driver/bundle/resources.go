package bundle

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

// Limits of cgroup v1 shares, and the default of processes.
const (
	minShares   = 2
	maxShares   = 262144
	defaultPIDs = 1024
)

// deviceRule denies all devices; the runtime adds those that every container has (null, zero, random, tty, pts …).
func deviceRule(spec *specs.Spec, _ driver.Container, _ Facts) error {
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	return nil
}

// memoryRule: swap is never given on top of memory.
func memoryRule(spec *specs.Spec, c driver.Container, f Facts) error {
	l := c.Limits
	if l.MemoryBytes < 0 || l.MemoryReservationBytes < 0 {
		return errors.New("memory limit is negative")
	}
	memory := &specs.LinuxMemory{}
	if l.MemoryBytes > 0 {
		memory.Limit = &l.MemoryBytes
		if f.SwapLimits {
			memory.Swap = &l.MemoryBytes
		}
	}
	if l.MemoryReservationBytes > 0 {
		memory.Reservation = &l.MemoryReservationBytes
	}
	spec.Linux.Resources.Memory = memory
	return nil
}

// cpuRule: Nomad's shares are MHz, which large hosts can drive beyond what the kernel takes.
func cpuRule(spec *specs.Spec, c driver.Container, _ Facts) error {
	cpu := &specs.LinuxCPU{Cpus: c.Limits.CPUSet}
	if c.Limits.CPUShares > 0 {
		shares := min(max(c.Limits.CPUShares, minShares), maxShares)
		cpu.Shares = &shares
	}
	if c.Limits.CPUQuota > 0 {
		quota, period := c.Limits.CPUQuota, c.Limits.CPUPeriod
		if period == 0 {
			return fmt.Errorf("cpu quota of %d microseconds has no period", quota)
		}
		cpu.Quota, cpu.Period = &quota, &period
	}
	if c.CpusetCgroup != "" { // Nomad's cpuset cgroup rules
		cpu.Cpus = ""
	}
	spec.Linux.Resources.CPU = cpu
	return nil
}

// pidsRule: there is always a limit.
func pidsRule(spec *specs.Spec, c driver.Container, _ Facts) error {
	limit := c.Limits.PIDs
	if limit < 0 {
		return errors.New("limit of processes is negative")
	}
	if limit == 0 {
		limit = defaultPIDs
	}
	spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	return nil
}
