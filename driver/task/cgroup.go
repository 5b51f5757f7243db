package task

import (
	"strings"

	"drover/driver"
)

const (
	cgroupRoot  = "/sys/fs/cgroup"
	cpusetMount = cgroupRoot + "/cpuset"
	minShares   = 2
	maxShares   = 262144
	quotaPeriod = 100_000
)

// cgroupPaths derives a task's cgroup, relative to the cgroup mounts, from the one path that Nomad tells. On v1 that is
// only where the task's cpuset is, which many tasks may share; it is returned as the second value.
func cgroupPaths(nomads, allocID, taskName string) (cgroup, cpuset string) {
	if nomads == "" {
		return "", ""
	}
	if inCpuset, ok := strings.CutPrefix(nomads, cpusetMount); ok {
		parent, _, _ := strings.Cut(inCpuset, "/reserve/")
		return strings.TrimSuffix(parent, "/share") + "/" + allocID + "." + taskName, nomads
	}
	return strings.TrimPrefix(nomads, cgroupRoot), ""
}

// limits turns what Nomad granted into limits of the container.
func limits(r Resources, pids int64, cpuHardLimit bool, cpus int) driver.Limits {
	l := driver.Limits{
		MemoryBytes: r.MemoryMB << 20,
		CPUShares:   uint64(min(max(r.CPUShares, minShares), maxShares)),
		PIDs:        pids,
		NoFile:      defaultNoFile,
	}
	switch {
	case r.MemoryMaxMB > 0:
		l.MemoryBytes, l.MemoryReservationBytes = r.MemoryMaxMB<<20, r.MemoryMB<<20
	case r.MemoryMaxMB < 0:
		l.MemoryBytes, l.MemoryReservationBytes = 0, r.MemoryMB<<20
	}
	if cpuHardLimit && r.CPUFraction > 0 {
		l.CPUPeriod = quotaPeriod
		l.CPUQuota = cpuQuota(r.CPUFraction, quotaPeriod, cpus)
	}
	l.CPUSet = r.Cores
	return l
}

// cpuQuota is a part of the node's processors for each period; a millisecond is the least that the kernel takes.
func cpuQuota(fraction float64, period uint64, cpus int) int64 {
	return max(int64(fraction*float64(period)*float64(cpus)), 1000)
}
