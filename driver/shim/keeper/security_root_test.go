//go:build root

package keeper_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// run runs a container that is given some security to its end, and returns what it printed.
func (b *box) run(user string, s driver.Security) string {
	b.t.Helper()
	b.wish.Process.User, b.wish.Security = user, s
	if s.Privileged {
		b.wish.IDs = driver.IDRange{}
	}
	if exit := b.start().wait(); exit.Code != 0 {
		b.t.Fatalf("exit is %+v, output %s%s", exit, b.out, b.errs)
	}
	eventually(b.t, func() (bool, string) { return b.out.String() != "", "nothing" })
	return b.out.String()
}

func TestCapabilities(t *testing.T) {
	const netAdmin, chown = 1 << unix.CAP_NET_ADMIN, 1 << unix.CAP_CHOWN
	garden, err := strconv.ParseUint(gardenCapabilities, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		promise  string
		user     string
		security driver.Security
		eff, bnd uint64
	}{
		{"root has what is added", "root", driver.Security{CapAdd: []string{"CAP_NET_ADMIN"}}, garden | netAdmin, garden | netAdmin},
		{"root has not what is dropped", "root", driver.Security{CapDrop: []string{"CAP_CHOWN"}}, garden &^ chown, garden &^ chown},
		{
			"all are dropped and one is added", "root",
			driver.Security{CapDrop: driver.DefaultCapabilities(), CapAdd: []string{"CAP_CHOWN"}}, chown, chown,
		},
		{"vcap can use what is added", "vcap", driver.Security{CapAdd: []string{"CAP_NET_ADMIN"}}, netAdmin, netAdmin},
		{"vcap has nothing when things are dropped", "vcap", driver.Security{CapDrop: []string{"CAP_CHOWN"}}, 0, 0},
		{"vcap's files may grant root's", "vcap", driver.Security{NewPrivileges: true}, 0, garden},
	} {
		t.Run(test.promise, func(t *testing.T) {
			text := newBox(t, "then", "--", "status", "CapEff", "--", "status", "CapBnd", "--", "status", "CapAmb").run(test.user, test.security)
			for name, want := range map[string]uint64{"CapEff": test.eff, "CapBnd": test.bnd} {
				if got := hexOf(t, text, name); got != want {
					t.Errorf("%s is %016x, want %016x", name, got, want)
				}
			}
			if ambient := hexOf(t, text, "CapAmb"); test.user == "root" && ambient != 0 {
				t.Errorf("CapAmb is %016x", ambient)
			}
		})
	}
}

func hexOf(t *testing.T, status, name string) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(status, name+":")
	value, err := strconv.ParseUint(strings.Fields(rest + " x")[0], 16, 64)
	if err != nil {
		t.Fatalf("%s in %q: %v", name, status, err)
	}
	return value
}

// An added capability is of use to vcap, and lets no new privileges in.
func TestCapabilities_areUsable(t *testing.T) {
	for promise, test := range map[string]struct {
		add  []string
		want int
	}{
		"with it": {[]string{"CAP_SETUID"}, 0}, "without it": {nil, 1},
	} {
		b := newBox(t, "then", "--", "status", "NoNewPrivs", "--", "call", strconv.Itoa(unix.SYS_SETUID), "0")
		b.wish.Security.CapAdd = test.add
		if exit := b.start().wait(); exit.Code != test.want {
			t.Errorf("%s: exit is %+v, %s", promise, exit, b.errs)
		}
		b.sees(b.out, "\t1")
	}
}

func TestNewPrivileges(t *testing.T) {
	if text := newBox(t, "status", "NoNewPrivs").run("vcap", driver.Security{NewPrivileges: true}); !strings.Contains(text, "\t0") {
		t.Errorf("NoNewPrivs is %s", text)
	}
}

// What new privileges are for: a program of root's that everybody may run as root.
func TestNewPrivileges_setUserID(t *testing.T) {
	for allowed, want := range map[bool]string{true: "2000\t0\t0\t0", false: "2000\t2000\t2000\t2000"} {
		b := newBox(t, "status", "Uid")
		if err := os.Chmod(filepath.Join(b.wish.RootFS.Layers[0].Dir, "bin/probe"), 0o755|os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		if text := b.run("vcap", driver.Security{NewPrivileges: allowed}); !strings.Contains(text, want) {
			t.Errorf("new privileges %v: %s", allowed, text)
		}
	}
}

func TestPrivileged(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t, "then", "--", "status", "CapEff", "--", "status", "Seccomp", "--", "readlink", "/proc/self/ns/user",
		"--", "stat", "/dev/null", "/dev/kmsg", "--", "write", "/proc/sys/kernel/hostname", "inside", "--", "cat", "/proc/sys/kernel/hostname")
	b.wish.Seccomp = "off"
	text := b.run("root", driver.Security{Privileged: true, NewPrivileges: true})
	if caps := hexOf(t, text, "CapEff"); caps&(1<<unix.CAP_SYS_ADMIN) == 0 {
		t.Errorf("CapEff is %x", caps)
	}
	for _, want := range []string{"Seccomp:\t0", own, "/dev/kmsg", "inside"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
}

func TestSeccompProfile(t *testing.T) {
	profile := []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`)
	b := newBox(t, "call", strconv.Itoa(unix.SYS_MKDIRAT), "0xffffff9c", "0", "0")
	b.wish.Security.Profile = profile
	if exit := b.start().wait(); exit.Code != 1 {
		t.Errorf("exit is %+v", exit)
	}
	b.sees(b.errs, "function not implemented") // and not the bad address that the kernel would tell
	b = newBox(t, "call", strconv.Itoa(unix.SYS_UNSHARE), "0")
	b.wish.Security.Profile = profile
	if exit := b.start().wait(); exit.Code != 0 {
		t.Errorf("a call that the profile allows, and the default one does not: exit is %+v %s", exit, b.errs)
	}
	b = newBox(t, "call", strconv.Itoa(unix.SYS_UNSHARE), "0")
	if exit := b.start().wait(); exit.Code != 1 {
		t.Errorf("the default profile allows unshare: exit is %+v", exit)
	}
}

// The gate is for containers whose root can do nothing about it, and its compiled filters are the driver's own.
func TestSecurity_withoutAGate(t *testing.T) {
	for promise, test := range map[string]struct {
		security driver.Security
		gated    bool
	}{
		"the default":       {driver.Security{}, true},
		"an administrator":  {driver.Security{CapAdd: []string{"CAP_SYS_ADMIN"}}, false},
		"all that there is": {driver.Security{CapAddAny: []string{"CAP_SYS_ADMIN"}}, false},
		"a profile":         {driver.Security{Profile: []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`)}, false},
	} {
		b := taskBox(t, models.TaskDefinition{Action: models.WrapAction(probe("APP", "sleep", "60"))})
		b.wish.Security = test.security
		b.start()
		filter, err := filepath.Glob(filepath.Join(b.dir, "runc", "filter"))
		if err != nil {
			t.Fatal(err)
		}
		if gated := len(filter) > 0; gated != test.gated {
			t.Errorf("%s: a gate: %v", promise, gated)
		}
	}
}

func TestHostNamespaces(t *testing.T) {
	hosts := map[string]string{}
	for _, kind := range []string{"pid", "ipc", "uts"} {
		var err error
		if hosts[kind], err = os.Readlink("/proc/self/ns/" + kind); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		promise  string
		security driver.Security
		shared   string
	}{
		{"none by default", driver.Security{}, ""},
		{"the host's processes", driver.Security{HostPID: true}, "pid"},
		{"the host's shared memory", driver.Security{HostIPC: true}, "ipc"},
		{"the host's name", driver.Security{HostUTS: true}, "uts"},
	} {
		for _, userns := range []bool{true, false} {
			t.Run(test.promise+", a user namespace: "+strconv.FormatBool(userns), func(t *testing.T) {
				b := newBox(t, "then", "--", "readlink", "/proc/self/ns/pid", "/proc/self/ns/ipc", "/proc/self/ns/uts", "--", "ls", "/proc", "--", "ls", "/dev/mqueue")
				if !userns {
					b.wish.IDs = driver.IDRange{}
				}
				sharesOnly(t, b.run("vcap", test.security), test.shared, hosts)
			})
		}
	}
}

// sharesOnly wants what a container saw to be of its own, but for the namespace of one kind.
func sharesOnly(t *testing.T, text, kind string, hosts map[string]string) {
	t.Helper()
	for of, host := range hosts {
		if shared := strings.Contains(text, host); shared != (of == kind) {
			t.Errorf("%s is shared: %v", of, shared)
		}
	}
	if seen := strings.Contains(text, "\n"+strconv.Itoa(os.Getpid())+"\n"); seen != (kind == "pid") {
		t.Errorf("the host's processes are seen: %v", seen)
	}
}

// In the host's pid namespace the container's processes end with it too, and no other.
func TestHostNamespaces_endWithTheTask(t *testing.T) {
	b := newBox(t, "orphan", "/tmp/left")
	b.wish.Security.HostPID = true
	b.start()
	b.sees(b.out, "orphan")
	b.wait()
	pid, err := strconv.Atoi(strings.Fields(b.out.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err == nil && !strings.Contains(string(state), ") Z ") {
		t.Errorf("process %d of the container still runs: %s", pid, state)
	}
}

// A stranger among the host's processes reads nothing of them.
func TestHostNamespaces_areClosed(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, path := range []string{"environ", "root/etc/shadow", "mem"} {
		b := newBox(t, "cat", "/proc/"+self+"/"+path)
		b.wish.Process.User, b.wish.Security.HostPID = "root", true
		if exit := b.start().wait(); exit.Code != 1 {
			t.Errorf("%s is readable", path)
		}
	}
	b := newBox(t, "write", "/proc/sys/kernel/hostname", "x")
	b.wish.Process.User, b.wish.Security.HostPID = "root", true
	if exit := b.start().wait(); exit.Code != 1 {
		t.Error("the host's sysctls are writable")
	}
}

func TestIdentity(t *testing.T) {
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(filepath.Dir(shared)), filepath.Dir(shared), shared} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	b := newBox(t, "then", "--", "cat", "/proc/self/uid_map", "--", "stat", "/home/vcap", "/bin/probe", "--", "write", "/shared/mine", "x", "--", "write", "/home/vcap/mine", "x")
	b.wish.IDs = driver.IDRange{Host: 4294967294, Size: 65536, Identity: true}
	b.wish.Mounts = []driver.Mount{{Source: shared, Target: "/shared"}}
	text := b.run("vcap", driver.Security{})
	if fields := strings.Fields(text); fields[1] != "4294967294" || fields[4] != "1" || fields[5] != "65535" {
		t.Errorf("ids are mapped as %s", text)
	}
	if !strings.Contains(text, " 2000 2000 /home/vcap") || !strings.Contains(text, " 0 0 /bin/probe") {
		t.Errorf("files belong to others: %s", text)
	}
	info, err := os.Stat(filepath.Join(shared, "mine"))
	if err != nil || ownerOf(info) != driver.VcapID {
		t.Errorf("vcap's file belongs to %v, %v", info, err)
	}
}

func TestSysctl(t *testing.T) {
	b := newBox(t, "cat", "/proc/sys/kernel/msgmax", "/proc/sys/kernel/sem", "/proc/sys/fs/mqueue/msg_max", "/proc/sys/net/core/somaxconn")
	b.wish.NetNS = newNetNS(t)
	before, err := os.ReadFile("/proc/sys/kernel/msgmax")
	if err != nil {
		t.Fatal(err)
	}
	text := b.run("vcap", driver.Security{Sysctl: map[string]string{
		"kernel.msgmax": "4321", "kernel.sem": "250 32000 100 99", "fs.mqueue.msg_max": "17", "net.core.somaxconn": "1234",
	}})
	if got := strings.Join(strings.Fields(text), " "); got != "4321 250 32000 100 99 17 1234" {
		t.Errorf("the values are %q", got)
	}
	after, err := os.ReadFile("/proc/sys/kernel/msgmax")
	if err != nil || string(after) != string(before) {
		t.Errorf("the host's value is %s, was %s, %v", after, before, err)
	}
}

func TestSysctl_errors(t *testing.T) {
	for name, value := range map[string]string{"kernel.msgmax": "many", "kernel.shmnone": "1", "net.core.somaxconn": "1"} {
		b := newBox(t, "echo")
		b.wish.Security.Sysctl = map[string]string{name: value}
		_, err := shim.Start(t.Context(), program, b.dir, b.wish)
		t.Cleanup(b.destroy)
		if err == nil || !strings.Contains(err.Error(), "sysctl") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestGroups(t *testing.T) {
	b := newBox(t, "id")
	if text := b.run("root", driver.Security{Groups: []string{"extra", "4242"}}); !strings.Contains(text, "3000 4242") {
		t.Errorf("groups are %s", text)
	}
	b = newBox(t, "id")
	b.wish.Security.Groups = []string{"strangers"}
	_, err := shim.Start(t.Context(), program, b.dir, b.wish)
	t.Cleanup(b.destroy)
	if err == nil || !strings.Contains(err.Error(), "group_add") {
		t.Errorf("error is %v", err)
	}
}
