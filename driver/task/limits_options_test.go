package task

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func TestLimitWish(t *testing.T) {
	node := Config{Limit: LimitConfig{OOMScoreAdj: 200}}
	for _, row := range []struct {
		promise string
		wish    LimitWish
		says    string
	}{
		{"takes nothing", LimitWish{}, ""},
		{"takes all", LimitWish{
			Ulimits: map[string]string{"nofile": "1:2", "core": "-1", "stack": "unlimited"}, ShmSize: "64m", OOMScoreAdj: 1000, CPUPeriod: 1000, CPUSet: "0-2,5", MemoryHardMB: 1,
		}, ""},
		{"refuses a limit that does not exist", LimitWish{Ulimits: map[string]string{"NOFILE": "1"}}, `ulimit: there is no limit "NOFILE"; there are as, core,`},
		{"refuses a soft limit above the hard one", LimitWish{Ulimits: map[string]string{"nofile": "3:2"}}, `ulimit: nofile: "3:2"`},
		{"refuses words", LimitWish{Ulimits: map[string]string{"nofile": "many"}}, `ulimit: nofile: "many"`},
		{"refuses an empty half", LimitWish{Ulimits: map[string]string{"nofile": "1:"}}, `ulimit: nofile: "1:"`},
		{"refuses an empty /dev/shm", LimitWish{ShmSize: "0"}, "shm_size: must be more"},
		{"refuses another size", LimitWish{ShmSize: "big"}, `shm_size: "big" is not a size`},
		{"refuses to die later than the operator wants", LimitWish{OOMScoreAdj: 199}, "oom_score_adj: 199 must be between 200"},
		{"refuses to die never", LimitWish{OOMScoreAdj: -1000}, "oom_score_adj: -1000"},
		{"refuses more than the kernel knows", LimitWish{OOMScoreAdj: 1001}, "and 1000"},
		{"refuses a short period", LimitWish{CPUPeriod: 999}, "cpu_cfs_period: 999 must be between 1000 and 1000000"},
		{"refuses processors by name", LimitWish{CPUSet: "0-2,x"}, `cpuset_cpus: "0-2,x"`},
		{"refuses a range upside down", LimitWish{CPUSet: "2-0"}, "cpuset_cpus"},
		{"refuses less than nothing", LimitWish{MemoryHardMB: -1}, "memory_hard_limit: -1"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			err := row.wish.validate(node)
			if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("error %v, want one with %q", err, row.says)
			}
		})
	}
}

func TestApplyLimit(t *testing.T) {
	const share, v2 = "/sys/fs/cgroup/cpuset/nomad/share", "/sys/fs/cgroup/nomad.slice/share.slice/a1.web.scope"
	for _, row := range []struct {
		promise string
		wish    LimitWish
		grant   Resources
		node    int
		want    driver.Container
	}{
		{"leaves all as it is", LimitWish{}, Resources{MemoryMB: 32}, 0, driver.Container{Limits: driver.Limits{MemoryBytes: 32 << 20}}},
		{"has Docker's ulimits in order", LimitWish{Ulimits: map[string]string{"nproc": "5", "core": "0:-1"}}, Resources{}, 0, driver.Container{Limits: driver.Limits{
			Ulimits: []driver.Ulimit{{Name: "core", Hard: driver.Unlimited}, {Name: "nproc", Soft: 5, Hard: 5}},
		}}},
		{"has the operator's place among victims", LimitWish{}, Resources{}, 300, driver.Container{Limits: driver.Limits{OOMScoreAdj: 300}}},
		{"has its own place behind that", LimitWish{OOMScoreAdj: 400}, Resources{}, 300, driver.Container{Limits: driver.Limits{OOMScoreAdj: 400}}},
		{"reserves memory below Docker's hard limit", LimitWish{MemoryHardMB: 64}, Resources{MemoryMB: 32}, 0,
			driver.Container{Limits: driver.Limits{MemoryBytes: 64 << 20, MemoryReservationBytes: 32 << 20}}},
		{"takes the larger of Docker's limit and Nomad's", LimitWish{MemoryHardMB: 64}, Resources{MemoryMB: 32, MemoryMaxMB: 128}, 0,
			driver.Container{Limits: driver.Limits{MemoryBytes: 128 << 20, MemoryReservationBytes: 32 << 20}}},
		{"has no limit where Nomad gives none", LimitWish{MemoryHardMB: 64}, Resources{MemoryMB: 32, MemoryMaxMB: -1}, 0,
			driver.Container{Limits: driver.Limits{MemoryReservationBytes: 32 << 20}}},
		{"narrows its own group on cgroup v2", LimitWish{CPUSet: "1"}, Resources{CpusetCgroup: v2}, 0, driver.Container{Limits: driver.Limits{CPUSet: "1"}}},
		{"leaves Nomad's shared cpuset on cgroup v1", LimitWish{CPUSet: "1"}, Resources{CpusetCgroup: share}, 0, driver.Container{Limits: driver.Limits{CPUSet: "1"}}},
	} {
		t.Run(row.promise, func(t *testing.T) {
			f := facts{req: Request{AllocID: "a1", TaskName: "web", Resources: row.grant, Wish: Wish{Limit: row.wish}}, node: Config{Limit: LimitConfig{OOMScoreAdj: row.node}}, cpus: 4}
			_, cpuset := cgroupPaths(row.grant.CpusetCgroup, "a1", "web")
			got := driver.Container{Limits: limits(row.grant, 0, false, 4), CpusetCgroup: cpuset}
			if err := f.applyLimit(&got); err != nil {
				t.Fatal(err)
			}
			got.Limits.CPUShares, got.Limits.NoFile = 0, 0
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestApplyLimit_countsTheQuotaInTheJobsPeriod(t *testing.T) {
	grant := Resources{CPUFraction: 0.25}
	f := facts{req: Request{Resources: grant, Wish: Wish{Limit: LimitWish{CPUPeriod: 20000}}}, cpus: 4}
	for _, hard := range []bool{true, false} {
		c := driver.Container{Limits: limits(grant, 0, hard, 4)}
		if err := f.applyLimit(&c); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int64{true: 20000}[hard]; c.Limits.CPUQuota != want || int64(c.Limits.CPUPeriod) != want {
			t.Errorf("hard limit %t: quota %d in %d", hard, c.Limits.CPUQuota, c.Limits.CPUPeriod)
		}
	}
}

func TestApplyLimit_refuses(t *testing.T) {
	for _, row := range []struct {
		promise string
		wish    LimitWish
		grant   Resources
		says    string
	}{
		{"refuses a hard limit below the reservation", LimitWish{MemoryHardMB: 16}, Resources{MemoryMB: 32}, "memory_hard_limit: 16 MB"},
		{"refuses processors beside reserved cores", LimitWish{CPUSet: "1"}, Resources{Cores: "0", CpusetCgroup: "/sys/fs/cgroup/cpuset/nomad/reserve/a1.web"}, "resources.cores"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			f := facts{req: Request{Resources: row.grant, Wish: Wish{Limit: row.wish}}}
			if err := f.applyLimit(&driver.Container{}); err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("error %v, want one with %q", err, row.says)
			}
		})
	}
}
