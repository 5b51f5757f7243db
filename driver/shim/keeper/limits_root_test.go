//go:build root

package keeper_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
	"drover/driver/cgroup"
	"drover/driver/shim"
)

// Limits are seen from the inside, by the task's own process and by one that is run in it later.
func TestLimits_seenInside(t *testing.T) {
	last := strconv.Itoa(runtime.NumCPU() - 1)
	for _, test := range []struct {
		name   string
		limits driver.Limits
		args   []string
		want   string
	}{
		{"ulimit has a soft and a hard side", driver.Limits{Ulimits: []driver.Ulimit{{Name: "fsize", Soft: 1000, Hard: 2000}}},
			[]string{"limit", "Max file size"}, "1000                 2000"},
		{"ulimit takes the default's place", driver.Limits{Ulimits: []driver.Ulimit{{Name: "nofile", Soft: 77, Hard: 99}}},
			[]string{"limit", "Max open files"}, " 99 "},
		{"a default is kept beside a ulimit", driver.Limits{Ulimits: []driver.Ulimit{{Name: "stack", Soft: 1 << 20, Hard: 1 << 20}}},
			[]string{"limit", "Max open files"}, " 16384 "},
		{"core files are written when the job says so", driver.Limits{Ulimits: []driver.Ulimit{{Name: "core", Soft: 5, Hard: 5}}},
			[]string{"limit", "Max core file size"}, " 5 "},
		{"/dev/shm has 64 MiB", driver.Limits{}, []string{"room", "/dev/shm"}, "67108864\n"},
		{"shm_size is the size of /dev/shm", driver.Limits{ShmBytes: 1 << 20}, []string{"room", "/dev/shm"}, "1048576\n"},
		{"oom_score_adj is not the agent's", driver.Limits{}, []string{"cat", "/proc/self/oom_score_adj"}, "0\n"},
		{"oom_score_adj is the task's", driver.Limits{OOMScoreAdj: 300}, []string{"cat", "/proc/self/oom_score_adj"}, "300\n"},
		{"cpuset_cpus is all that it may use", driver.Limits{CPUSet: last}, []string{"status", "Cpus_allowed_list"}, "\t" + last + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, append([]string{"then", "--"}, append(test.args, "--", "sleep", "60")...)...)
			test.limits.MemoryBytes, test.limits.PIDs = b.wish.Limits.MemoryBytes, b.wish.Limits.PIDs
			b.wish.Limits = test.limits
			b.start()
			b.sees(b.out, test.want)
			if got := b.exec(test.args...); !strings.Contains(got, test.want) {
				t.Errorf("a process that is run later sees %q, want %q", got, test.want)
			}
		})
	}
}

// An agent under systemd is protected from the kernel's killer. Its tasks must not be.
func TestLimits_oomScoreAdjOfTheAgent(t *testing.T) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0); err != nil {
		t.Skip("cannot protect the test itself:", err)
	}
	defer func() { _ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0) }()
	b := newBox(t, "cat", "/proc/self/oom_score_adj").start()
	b.wait()
	b.sees(b.out, "0\n")
	if got := b.out.String(); got != "0\n" {
		t.Errorf("oom_score_adj is %q", got)
	}
}

func TestLimits_moreThanTheHostHas(t *testing.T) {
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, "sleep", "60")
	b.wish.Limits.Ulimits = []driver.Ulimit{{Name: "nofile", Soft: 1, Hard: own.Max + 1}}
	_, err := shim.Start(t.Context(), program, b.dir, b.wish)
	t.Cleanup(func() { b.destroy() })
	if err == nil || !strings.Contains(err.Error(), "ulimit nofile: "+strconv.FormatUint(own.Max+1, 10)+" is more than") {
		t.Errorf("error is %v", err)
	}
}

// A ulimit that the kernel holds the users of a namespace to is the task's, and not the lower one of the shim.
func TestLimits_nproc(t *testing.T) {
	b := newBox(t, "fork", "50")
	b.wish.Limits.Ulimits = []driver.Ulimit{{Name: "nproc", Soft: 30, Hard: 30}}
	b.start()
	b.sees(b.out, "of 50")
	if strings.Contains(b.out.String(), "started 50") {
		t.Errorf("no limit: %s", b.out)
	}
}

// Diego's limits of a Run hold for its process alone.
func TestTask_limitsOfARun(t *testing.T) {
	run := probe("APP", "fork", "50")
	run.ResourceLimits = &models.ResourceLimits{}
	run.ResourceLimits.SetNproc(30)
	run.ResourceLimits.SetNofile(444)
	b := taskBox(t, models.TaskDefinition{Action: models.WrapAction(models.Serial(
		probe("APP", "limit", "Max processes"),
		&models.RunAction{Path: "/bin/probe", Args: []string{"limit", "Max open files"}, User: "vcap", ResourceLimits: run.ResourceLimits},
		run,
	))})
	b.start()
	b.sees(b.out, "of 50")
	text := b.out.String()
	if strings.Contains(text, "started 50") || !strings.Contains(text, " 444 ") || strings.Contains(text, "Max processes             30 ") {
		t.Errorf("output is %s", text)
	}
}

// What no process can see of its limits is in the cgroup's files.
func TestLimits_ofTheCgroup(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Limits = driver.Limits{
		MemoryBytes: 128 << 20, MemoryReservationBytes: 64 << 20, PIDs: 33, CPUShares: 512, CPUQuota: 20000, CPUPeriod: 50000,
	}
	b.start()
	group := "drover/" + b.wish.ID
	files := map[string]string{
		"memory/" + group + "/memory.limit_in_bytes": "134217728", "memory/" + group + "/memory.soft_limit_in_bytes": "67108864",
		"cpu/" + group + "/cpu.cfs_quota_us": "20000", "cpu/" + group + "/cpu.cfs_period_us": "50000", "cpu/" + group + "/cpu.shares": "512",
		"pids/" + group + "/pids.max": "33",
	}
	if cgroup.V2() {
		files = map[string]string{
			group + "/memory.max": "134217728", group + "/memory.low": "67108864", group + "/memory.swap.max": "0",
			group + "/cpu.max": "20000 50000", group + "/pids.max": "33",
		}
	}
	for name, want := range files {
		raw, err := os.ReadFile(filepath.Join(cgroup.Root, name))
		if err != nil || strings.TrimSpace(string(raw)) != want {
			t.Errorf("%s is %q, %v, want %s", name, raw, err, want)
		}
	}
}
