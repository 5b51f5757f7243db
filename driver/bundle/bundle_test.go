package bundle

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"drover/driver"
)

var update = flag.Bool("update", false, "write the golden files anew")

// facts are those of a usual host.
func facts() Facts {
	return Facts{
		Rootfs: "/state/rootfs", User: User{UID: 2000, GID: 2000, Groups: []uint32{3000}, Name: "vcap", Home: "/home/vcap"},
		WorkDir: "/home/vcap", Capabilities: append(gardenCapabilities(), "CAP_SYS_ADMIN"), HardLimits: map[string]uint64{"nofile": 1 << 20},
		CgroupV2: true, SwapLimits: true, Arch: "amd64", CgroupPath: "/nomad.slice/share.slice/a.web.scope", Sys: "/state/sys",
		Hosts: "/state/etc/hosts", ResolvConf: "/state/etc/resolv.conf", Hostname: "/state/etc/hostname",
		Init: "/opt/drover/drover-shim", IDMappable: map[string]bool{"/alloc": true},
	}
}

// wish is a usual container.
func wish() driver.Container {
	return driver.Container{
		ID: "a-web-1", Hostname: "web-0", IDs: driver.IDRange{Host: 1000000, Size: 65536}, NetNS: "/run/netns/a",
		Process: driver.Process{Args: []string{"/bin/app"}, Env: []string{"PORT=8080"}},
		Limits:  driver.Limits{MemoryBytes: 256 << 20, CPUShares: 512, PIDs: 2048},
		Mounts: []driver.Mount{
			{Source: "/alloc", Target: "/alloc", IDMapped: true},
			{Source: "/alloc/logs", Target: "/alloc/logs", ReadOnly: true, NoExec: true},
		},
	}
}

func TestSpec(t *testing.T) {
	for _, story := range []struct {
		name   string
		change func(*driver.Container, *Facts)
	}{
		{"app-as-vcap", func(*driver.Container, *Facts) {}},
		{"image-as-root", func(c *driver.Container, f *Facts) {
			f.User, f.WorkDir = User{Name: "root", Home: "/root"}, "/root"
			c.RootFS.ReadOnly = true
			c.Limits.CPUQuota, c.Limits.CPUPeriod, c.Limits.MemoryReservationBytes = 50000, 100000, 128<<20
			c.Limits.ShmBytes, c.Limits.OOMScoreAdj = 1<<20, 300
			c.Limits.Ulimits = []driver.Ulimit{{Name: "stack", Soft: 1 << 20, Hard: driver.Unlimited}}
		}},
		{"every-kind-of-mount", func(c *driver.Container, f *Facts) {
			c.Mounts = []driver.Mount{
				{Source: "/image", Target: "/data", Image: true},
				{Source: "/vol", Target: "/vol", IDMapped: true, Recursive: true},
				{Source: "/partly", Target: "/partly", IDMapped: true, Recursive: true},
				{Source: "/plain", Target: "/plain", IDMapped: true, Recursive: true, ReadOnly: true},
				{Source: "/vol", Target: "/slave", Recursive: true, Propagation: driver.PropagationSlave},
				{Source: "/vol", Target: "/shared", Recursive: true, Propagation: driver.PropagationShared},
				{Target: "/cache", NoExec: true, Tmpfs: &driver.Tmpfs{SizeBytes: 1 << 20, Mode: 0o1777}},
				{Target: "/ro", ReadOnly: true, Tmpfs: &driver.Tmpfs{SizeBytes: 4096, Mode: 0o755}},
			}
			f.IDMappable = map[string]bool{"/vol": true, "/partly": true}
			f.Nodes = []Device{{Source: "/state/devices/0", Target: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Access: "rw"}}
			f.IDMappableTree = map[string]bool{"/vol": true}
		}},
		{"tended-on-a-terminal", func(c *driver.Container, _ *Facts) { c.Init, c.TTY = true, true }},
		{"work-on-v1-without-userns", func(c *driver.Container, f *Facts) {
			c.IDs, c.NetNS, c.Work, c.Process = driver.IDRange{}, "", &driver.Work{}, driver.Process{}
			c.CpusetCgroup, c.Limits = "/sys/fs/cgroup/cpuset/nomad/share", driver.Limits{CPUSet: "0-1"}
			c.Seccomp = "off"
			f.CgroupV2, f.SwapLimits, f.CgroupPath = false, false, "/nomad/a.web"
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			c, f := wish(), facts()
			story.change(&c, &f)
			spec, err := Spec(c, f)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Linux.Seccomp != nil { // the table has a test of its own
				spec.Linux.Seccomp.Syscalls = nil
			}
			golden(t, story.name+".json", spec)
		})
	}
}

func golden(t *testing.T, name string, value any) {
	t.Helper()
	got, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("spec differs from %s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

func TestSpec_refuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*driver.Container, *Facts)
		want   string
	}{
		{"no command", func(c *driver.Container, _ *Facts) { c.Process.Args = nil }, "no command"},
		{"a variable without a name", func(c *driver.Container, _ *Facts) { c.Process.Env = []string{"=x"} }, "NAME=value"},
		{"a variable with a zero byte", func(c *driver.Container, _ *Facts) { c.Process.Env = []string{"A=\x00"} }, `"A"`},
		{"a mount over the root", func(c *driver.Container, _ *Facts) { c.Mounts[0].Target = "/x/.." }, "below /"},
		{"a relative mount", func(c *driver.Container, _ *Facts) { c.Mounts[0].Source = "x" }, `"x"`},
		{"negative memory", func(c *driver.Container, _ *Facts) { c.Limits.MemoryBytes = -1 }, "negative"},
		{"negative processes", func(c *driver.Container, _ *Facts) { c.Limits.PIDs = -1 }, "negative"},
		{"a quota without a period", func(c *driver.Container, _ *Facts) { c.Limits.CPUQuota = 5 }, "no period"},
		{"another seccomp", func(c *driver.Container, _ *Facts) { c.Seccomp = "lax" }, `"lax"`},
		{"another architecture", func(_ *driver.Container, f *Facts) { f.Arch = "vax" }, "vax"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, f := wish(), facts()
			test.change(&c, &f)
			_, err := Spec(c, f)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), c.ID) {
				t.Errorf("error is %v, want one with %q and the container", err, test.want)
			}
		})
	}
}

func TestSpec_isConfined(t *testing.T) {
	for _, uid := range []uint32{0, 1, 2000} {
		c, f := wish(), facts()
		f.User.UID = uid
		spec, err := Spec(c, f)
		if err != nil {
			t.Fatal(err)
		}
		p := spec.Process
		if !p.NoNewPrivileges || spec.Linux.Seccomp == nil || len(spec.Linux.MaskedPaths) == 0 || *spec.Linux.Resources.Pids.Limit <= 0 {
			t.Errorf("uid %d is not confined: %+v", uid, spec)
		}
		if slices.Contains(p.Capabilities.Bounding, "CAP_SYS_ADMIN") || len(p.Capabilities.Ambient)+len(p.Capabilities.Inheritable) > 0 {
			t.Errorf("uid %d has capabilities %+v", uid, p.Capabilities)
		}
		if uid != 0 && len(p.Capabilities.Bounding)+len(p.Capabilities.Effective)+len(p.Capabilities.Permitted) > 0 {
			t.Errorf("uid %d has capabilities %+v", uid, p.Capabilities)
		}
	}
}

func TestEnv(t *testing.T) {
	vcap, root := User{UID: 2000, Name: "vcap", Home: "/home/vcap"}, User{Name: "root", Home: "/root"}
	for _, test := range []struct {
		name string
		user User
		env  []string
		want []string
	}{
		{"fills in what is missing", vcap, nil, []string{"HOME=/home/vcap", "USER=vcap", "PATH=" + pathOther}},
		{"gives root the system's programs", root, nil, []string{"HOME=/root", "USER=root", "PATH=" + pathRoot}},
		{"keeps what is given", vcap, []string{"HOME=/app", "USER=me", "PATH=/bin"}, []string{"HOME=/app", "USER=me", "PATH=/bin"}},
		{
			"lets the last of two win, in the first's place", vcap,
			[]string{"A=1", "HOME=", "USER=", "PATH=", "A=2"}, []string{"A=2", "HOME=", "USER=", "PATH="},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Env(test.env, test.user)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestDir(t *testing.T) {
	vcap := User{Home: "/home/vcap"}
	exists := func(path string) bool { return path == "/home/vcap" }
	for _, test := range []struct {
		name, asked string
		user        User
		want        string
	}{
		{"what was asked for", "/work", vcap, "/work"},
		{"home", "", vcap, "/home/vcap"},
		{"the root when there is no home", "", User{Home: "/missing"}, "/"},
		{"the root when the user has none", "", User{}, "/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Dir(test.asked, test.user, exists); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	open := func(n uint64) map[string]uint64 {
		return map[string]uint64{"nofile": n, "nproc": 4000, "memlock": 1 << 16}
	}
	for _, test := range []struct {
		name    string
		process driver.Process
		limits  driver.Limits
		hard    map[string]uint64
		want    string
	}{
		{"a default", driver.Process{}, driver.Limits{}, open(1 << 20), "core=0:0 nofile=16384:16384"},
		{"the container's", driver.Process{}, driver.Limits{NoFile: 500}, open(1 << 20), "core=0:0 nofile=500:500"},
		{"the process's own", driver.Process{NoFile: 100}, driver.Limits{NoFile: 500}, open(1 << 20), "core=0:0 nofile=100:100"},
		{"no more than the host's", driver.Process{NoFile: 1 << 30}, driver.Limits{}, open(20000), "core=0:0 nofile=20000:20000"},
		{"the job's over the node's", driver.Process{}, driver.Limits{NoFile: 500, Ulimits: []driver.Ulimit{
			{Name: "nofile", Soft: 1, Hard: 2}, {Name: "core", Soft: driver.Unlimited, Hard: driver.Unlimited},
		}}, open(1 << 20), "core=unlimited:unlimited nofile=1:2"},
		{"the process's own over the job's", driver.Process{NoFile: 7, NProc: 8}, driver.Limits{Ulimits: []driver.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}},
			open(1 << 20), "core=0:0 nofile=7:7 nproc=8:8"},
		{"a process's processes, at most the host's", driver.Process{NProc: 1 << 40}, driver.Limits{}, open(1 << 20), "core=0:0 nofile=16384:16384 nproc=4000:4000"},
		{"refuses to raise the host's", driver.Process{}, driver.Limits{Ulimits: []driver.Ulimit{{Name: "memlock", Hard: driver.Unlimited}}},
			open(1 << 20), "error: ulimit memlock: unlimited is more than the 65536"},
		{"refuses soft above hard", driver.Process{}, driver.Limits{Ulimits: []driver.Ulimit{{Name: "core", Soft: 2, Hard: 1}}}, nil, "error: ulimit core: soft limit 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, err := rlimits(test.process, test.limits, test.hard)
			var words []string
			for _, l := range list {
				words = append(words, strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))+"="+limitText(l.Soft)+":"+limitText(l.Hard))
			}
			got := strings.Join(words, " ")
			if err != nil {
				got = "error: " + err.Error()
			}
			if !strings.HasPrefix(got, test.want) || err == nil && got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	c := wish()
	c.Limits = driver.Limits{CPUShares: 1 << 40}
	spec, err := Spec(c, facts())
	if err != nil {
		t.Fatal(err)
	}
	if shares := *spec.Linux.Resources.CPU.Shares; shares != maxShares {
		t.Errorf("shares are %d", shares)
	}
	if pids := *spec.Linux.Resources.Pids.Limit; pids != defaultPIDs {
		t.Errorf("pids are %d", pids)
	}
}

// allowedOn counts how often each call is allowed whatever its arguments.
func allowedOn(t *testing.T, arch string) map[string]int {
	t.Helper()
	spec, f := specs.Spec{Linux: &specs.Linux{}}, facts()
	f.Arch = arch
	if err := seccompRule(&spec, driver.Container{}, f); err != nil {
		t.Fatal(err)
	}
	allowed := map[string]int{}
	for _, call := range spec.Linux.Seccomp.Syscalls {
		if call.Action != specs.ActAllow || len(call.Args) > 0 {
			continue
		}
		for _, name := range call.Names {
			allowed[name]++
		}
	}
	return allowed
}

func TestSeccomp(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		allowed := allowedOn(t, arch)
		for name, times := range allowed {
			if times > 1 {
				t.Errorf("%s: %s is listed %d times", arch, name, times)
			}
		}
		for _, name := range []string{
			"mount", "umount2", "pivot_root", "bpf", "unshare", "setns", "clone", "clone3", "kexec_load", "init_module", "finit_module",
			"delete_module", "perf_event_open", "add_key", "request_key", "keyctl", "userfaultfd", "io_uring_setup", "reboot", "swapon",
			"settimeofday", "clock_settime", "open_by_handle_at", "fsopen", "fsmount", "move_mount", "open_tree", "mount_setattr",
			"quotactl", "acct", "syslog", "iopl", "ioperm", "personality", "socket", "lookup_dcookie", "nfsservctl", "vm86", "fanotify_init",
			"socketcall",
		} {
			if allowed[name] > 0 {
				t.Errorf("%s: %s is allowed", arch, name)
			}
		}
		for _, name := range []string{"read", "openat", "execve", "futex", "epoll_wait", "prctl", "seccomp", "getrandom", "rseq", "statx", "ptrace"} {
			if allowed[name] == 0 {
				t.Errorf("%s: %s is not allowed", arch, name)
			}
		}
	}
}

// A rule sees 64 bits of an argument of which the kernel reads 32.
func TestSeccomp_families(t *testing.T) {
	allowed := func(family uint64) bool {
		for _, rule := range socketRules() {
			if arg := rule.Args[0]; arg.Op == specs.OpMaskedEqual && family&arg.Value == arg.ValueTwo {
				return true
			}
		}
		return false
	}
	for family := range uint64(48) {
		want := family != unix.AF_ALG && family != unix.AF_VSOCK
		for _, upper := range []uint64{0, 1 << 32, 1 << 63} {
			if got := allowed(family | upper); got != want {
				t.Errorf("family %#x: allowed is %v", family|upper, got)
			}
		}
	}
	if allowed(48) || allowed(1<<31) {
		t.Error("families that do not exist are allowed")
	}
}

// Allowing socket would allow it, were it not denied by name.
func TestSeccomp_socketcall(t *testing.T) {
	spec := specs.Spec{Linux: &specs.Linux{}}
	if err := seccompRule(&spec, driver.Container{}, facts()); err != nil {
		t.Fatal(err)
	}
	denied := slices.ContainsFunc(spec.Linux.Seccomp.Syscalls, func(call specs.LinuxSyscall) bool {
		return slices.Contains(call.Names, "socketcall") && call.Action == specs.ActErrno && len(call.Args) == 0
	})
	if !denied {
		t.Error("socketcall is not denied by name")
	}
}
