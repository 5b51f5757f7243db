package task

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func TestCgroupPaths(t *testing.T) {
	for _, row := range []struct{ nomads, cgroup, cpuset string }{
		{"/sys/fs/cgroup/cpuset/nomad/share", "/nomad/a1.web", "/sys/fs/cgroup/cpuset/nomad/share"},
		{"/sys/fs/cgroup/cpuset/nomad/reserve/a1.web", "/nomad/a1.web", "/sys/fs/cgroup/cpuset/nomad/reserve/a1.web"},
		{"/sys/fs/cgroup/nomad.slice/share.slice/a1.web.scope", "/nomad.slice/share.slice/a1.web.scope", ""},
		{"", "", ""},
	} {
		cgroup, cpuset := cgroupPaths(row.nomads, "a1", "web")
		if cgroup != row.cgroup || cpuset != row.cpuset {
			t.Errorf("%s: got %q %q, want %q %q", row.nomads, cgroup, cpuset, row.cgroup, row.cpuset)
		}
	}
}

func TestLimits(t *testing.T) {
	base := driver.Limits{MemoryBytes: 64 << 20, CPUShares: 500, PIDs: 9, NoFile: defaultNoFile}
	with := func(change func(*driver.Limits)) driver.Limits {
		l := base
		change(&l)
		return l
	}
	for _, row := range []struct {
		promise string
		grant   Resources
		hard    bool
		want    driver.Limits
	}{
		{"limits memory to what is reserved", Resources{MemoryMB: 64, CPUShares: 500}, false, base},
		{"reserves below a higher limit", Resources{MemoryMB: 32, MemoryMaxMB: 64, CPUShares: 500}, false,
			with(func(l *driver.Limits) { l.MemoryReservationBytes = 32 << 20 })},
		{"lifts the limit when the job says so", Resources{MemoryMB: 32, MemoryMaxMB: -1, CPUShares: 500}, false,
			with(func(l *driver.Limits) { l.MemoryBytes, l.MemoryReservationBytes = 0, 32<<20 })},
		{"clamps few shares", Resources{MemoryMB: 64, CPUShares: 1}, false, with(func(l *driver.Limits) { l.CPUShares = 2 })},
		{"clamps many shares", Resources{MemoryMB: 64, CPUShares: 1 << 20}, false, with(func(l *driver.Limits) { l.CPUShares = 262144 })},
		{"has no quota unless asked", Resources{MemoryMB: 64, CPUShares: 500, CPUFraction: 0.25}, false, base},
		{"turns the share of the node into a quota", Resources{MemoryMB: 64, CPUShares: 500, CPUFraction: 0.25}, true,
			with(func(l *driver.Limits) { l.CPUPeriod, l.CPUQuota = 100000, 100000 })},
		{"pins cores on cgroup v2", Resources{MemoryMB: 64, CPUShares: 500, Cores: "0-1", CpusetCgroup: "/sys/fs/cgroup/nomad.slice/reserve.slice/x.scope"}, false,
			with(func(l *driver.Limits) { l.CPUSet = "0-1" })},
		{"pins cores in Nomad's cpuset on cgroup v1", Resources{MemoryMB: 64, CPUShares: 500, Cores: "0-1", CpusetCgroup: "/sys/fs/cgroup/cpuset/nomad/reserve/x"}, false,
			with(func(l *driver.Limits) { l.CPUSet = "0-1" })},
	} {
		t.Run(row.promise, func(t *testing.T) {
			if diff := cmp.Diff(row.want, limits(row.grant, 9, row.hard, 4)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
