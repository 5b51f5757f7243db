//go:build root

package keeper_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// looks is a file's content, and who may do what with it.
func looks(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x %v %d", sha256.Sum256(raw), info.Mode(), ownerOf(info))
}

// script puts an executable file into the image.
func (b *box) script(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.wish.RootFS.Layers[0].Dir, name), []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// CVE-2019-5736: an image makes the runtime execute itself, and a program in the container writes to it.
func TestCVE_2019_5736(t *testing.T) {
	before := looks(t, program)
	t.Run("as the entry", func(t *testing.T) {
		for _, entry := range []string{"script", "link"} {
			b := newBox(t)
			b.script("bin/script", "#!/proc/self/exe\n")
			b.script("bin/link", "")
			b.replaceByLink("bin/link", "/proc/self/exe")
			b.wish.Process.Args, b.wish.Process.User = []string{"/bin/" + entry}, "root"
			b.tryToRun()
		}
	})
	t.Run("by those who wait for an exec", func(t *testing.T) {
		b := newBox(t, "snatch")
		b.script("bin/script", "#!/proc/self/exe\n")
		b.wish.Process.User, b.wish.Limits.PIDs = "root", 512
		b.start()
		b.sees(b.out, "ready")
		for range 20 {
			for _, args := range [][]string{{"/bin/script"}, {"/bin/probe", "echo"}, {"/proc/self/exe", "init"}} {
				var out bytes.Buffer
				_, _ = b.client.Exec(b.t.Context(), shim.ExecRequest{
					Process: driver.Process{Args: args, User: "root"}, Stdout: &out, Stderr: &out,
				})
			}
		}
		if strings.Contains(b.out.String(), "wrote") {
			t.Error("a program of ours was written to")
		}
	})
	if looks(t, program) != before {
		t.Fatal("the shim's program has changed")
	}
}

// CVE-2024-21626: a working directory that is a descriptor of the runtime's, at the start and of an exec; descriptors that
// the container inherits.
func TestCVE_2024_21626(t *testing.T) {
	running := newBox(t, "sleep", "60").start()
	outside := []string{"shim.log", "container.json", "cgroup.procs", "runc"}
	for n := range 24 {
		dir := "/proc/self/fd/" + strconv.Itoa(n)
		var out bytes.Buffer
		_, _ = running.client.Exec(t.Context(), shim.ExecRequest{
			Process: driver.Process{Args: []string{"/bin/probe", "ls", "../.."}, User: "root", Dir: dir}, Stdout: &out, Stderr: &out,
		})
		text := out.String()
		if n > 2 && n < 12 { // starts are slower
			b := newBox(t, "then", "--", "ls", ".", "--", "ls", "../..", "--", "ls", "../../../../../..")
			b.wish.Process.Dir, b.wish.Process.User = dir, "root"
			b.tryToRun()
			text += b.out.String()
		}
		for _, name := range outside {
			if strings.Contains(text, name) {
				t.Errorf("%s shows the host: %s", dir, text)
			}
		}
	}
	for _, of := range []string{"/proc/self/fd", "/proc/1/fd"} {
		for name := range strings.FieldsSeq(running.execAs("root", "ls", of)) {
			if n, err := strconv.Atoi(name); err != nil || n > 9 {
				t.Errorf("%s has %q", of, name)
			}
			if target := running.execAs("root", "readlink", "/proc/1/fd/"+name); strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/dev/null") && strings.Contains(target, filepath.Dir(running.dir)) {
				t.Errorf("process 1 holds %s", target)
			}
		}
	}
}

// overDev is a volume that lies over the container's /dev, and in which another container has put links.
func overDev(t *testing.T, links map[string]string) driver.Mount {
	t.Helper()
	volume := t.TempDir()
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	return driver.Mount{Source: volume, Target: "/dev"}
}

// CVE-2025-31133: what masks a file of the host's is a link, so that the file is shown, or written, instead.
func TestCVE_2025_31133(t *testing.T) {
	for _, target := range []string{"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/kcore"} {
		for _, where := range []string{"image", "volume"} {
			for _, userns := range []bool{true, false} {
				b := newBox(t, "cat", "/proc/self/mountinfo")
				if !userns {
					b.wish.IDs = driver.IDRange{}
				}
				b.wish.Process.User = "root"
				if where == "image" {
					b.replaceByLink("dev/null", target)
				} else {
					b.wish.Mounts = []driver.Mount{overDev(t, map[string]string{"null": target})}
				}
				ran := b.tryToRun()
				t.Logf("null of the %s leads to %s: it runs: %v", where, target, ran)
				if ran {
					masked(t, b.out.String())
				}
			}
		}
	}
}

// masked wants mounts on what the container is not to see or change.
func masked(t *testing.T, mountinfo string) {
	t.Helper()
	for path, want := range map[string]string{"/proc/keys": " /null /proc/keys ", "/proc/timer_list": " /null /proc/timer_list ", "/proc/sys": " /sys /proc/sys ro,"} {
		if _, err := os.Stat(path); err == nil && !strings.Contains(lineWith(mountinfo, " "+path+" "), want) {
			t.Errorf("%s is %q", path, lineWith(mountinfo, " "+path+" "))
		}
	}
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); strings.Contains(fields[3], "sysrq-trigger") && !strings.HasPrefix(fields[5], "ro") {
			t.Errorf("mounted is %s", line)
		}
	}
}

// CVE-2025-52565: the console is mounted where the image has a link.
func TestCVE_2025_52565(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", strings.Repeat("../", 40) + victim} {
		for _, where := range []string{"image", "volume"} {
			b := newBox(t, "cat", "/proc/self/mountinfo")
			b.wish.Process.User, b.wish.TTY = "root", true
			if where == "image" {
				b.replaceByLink("dev/console", target)
			} else {
				b.wish.Mounts = []driver.Mount{overDev(t, map[string]string{"console": target, "pts": "/proc"})}
			}
			if ran := b.tryToRun(); !ran {
				continue
			}
			for _, path := range []string{"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"} {
				if line := lineWith(b.out.String(), " "+path+" "); strings.Contains(line, " devpts ") {
					t.Errorf("the console lies over %s: %s", path, line)
				}
			}
		}
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" || isMounted(t, victim) {
		t.Errorf("the host's file is %q, %v", text, err)
	}
}

// CVE-2025-52881: what the runtime writes to /proc, such as labels and limits, goes elsewhere because something else lies there.
func TestCVE_2025_52881(t *testing.T) {
	fake := t.TempDir()
	for _, name := range []string{"self/attr/apparmor", "sys/kernel", "1/attr"} {
		if err := os.MkdirAll(filepath.Join(fake, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"self/attr/exec", "self/attr/apparmor/exec", "self/oom_score_adj"} {
		if err := os.Symlink("/proc/sysrq-trigger", filepath.Join(fake, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/sys/kernel"} {
		b := newBox(t, "then", "--", "ls", "/proc/self/attr/apparmor", "--", "echo", "within")
		b.wish.Process.User = "root"
		b.wish.Mounts = []driver.Mount{{Source: fake, Target: target}}
		if b.tryToRun() {
			t.Errorf("something lies over %s", target)
		}
	}
	b := newBox(t, "then", "--", "status", "Pid", "--", "write", "/proc/sys/kernel/core_pattern", "|/evil")
	b.wish.Process.User = "root"
	b.replaceByLink("proc", "/tmp")
	if b.tryToRun() && !strings.Contains(b.out.String(), "Pid:") && !strings.Contains(b.errs.String(), "no such file") {
		t.Errorf("/proc is elsewhere: %s%s", b.out, b.errs)
	}
}

// CVE-2026-41579: the image's /dev is a link; nothing is made where it leads.
func TestCVE_2026_41579(t *testing.T) {
	victim := t.TempDir()
	for _, target := range []string{victim, strings.Repeat("../", 40) + victim, "/proc/self/root", "/proc/1/cwd", "/proc/self/fd/3", "/sys", "."} {
		b := newBox(t, "ls", "/dev")
		b.replaceByLink("dev", target)
		b.tryToRun()
		if entries, err := os.ReadDir(victim); err != nil || len(entries) != 0 {
			t.Errorf("/dev is %s: the host's directory holds %v, %v", target, entries, err)
		}
		if entries, err := os.ReadDir(b.wish.RootFS.Layers[0].Dir); err != nil || len(entries) > 12 {
			t.Errorf("/dev is %s: the image holds %v, %v", target, entries, err)
		}
	}
}

// CVE-2026-6959: a task of the allocation puts a link, or another file, in the place of the log's fifo.
func TestCVE_2026_6959(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	mkfifo(t, filepath.Join(dir, "out.fifo")) // of somebody else
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o777); err != nil {
		t.Fatal(err)
	}
	mkfifo(t, filepath.Join(dir, "logs", "out.fifo"))
	before := looks(t, victim)
	for name, swap := range map[string]func(path string) error{
		"a link to a file":     func(path string) error { return os.Symlink(victim, path) },
		"a link to a fifo":     func(path string) error { return os.Symlink(filepath.Join(dir, "out.fifo"), path) },
		"a second name of one": func(path string) error { return os.Link(victim, path) },
		"a link to a device":   func(path string) error { return os.Symlink("/dev/kmsg", path) },
		"a device":             func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 11))) },
		"a directory":          func(path string) error { return os.Mkdir(path, 0o777) },
		"a link on the way":    func(path string) error { return linkDir(filepath.Dir(path), dir, filepath.Base(path)) },
		"a link higher up":     func(path string) error { return linkDir(filepath.Dir(filepath.Dir(path)), dir, "logs") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "echo", "written")
			path := filepath.Join(t.TempDir(), "alloc", "logs", "out.fifo")
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := swap(path); err != nil {
				t.Fatal(err)
			}
			b.wish.Stdout = path
			if b.tryToRun() {
				t.Error("it runs")
			}
			if looks(t, victim) != before {
				t.Fatal("the host's file has changed")
			}
		})
	}
}

// linkDir puts a link to target in the place of a directory.
func linkDir(dir, target, _ string) error {
	return errors.Join(os.RemoveAll(dir), os.Symlink(target, dir))
}

// A9: what listens on the host's loopback device, the node's sockets and other tasks' directories are out of reach.
func TestNeighbours(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // as in a test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	other := newBox(t, "sleep", "60").start()
	b := newBox(t, "sleep", "60")
	b.wish.NetNS = newNetNS(t)
	b.start()
	if got := b.execAs("root", "dial", listener.Addr().String()); !strings.Contains(got, "refused") {
		t.Errorf("the host's loopback: %q", got)
	}
	abstract, err := net.Listen("unix", "@drover-test-"+strconv.Itoa(os.Getpid())) //nolint:noctx // as in a test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = abstract.Close() })
	if got := b.execAs("root", "cat", "/proc/net/unix"); strings.Contains(got, "drover") || strings.Contains(got, ".sock") {
		t.Errorf("the node's sockets are seen: %s", got)
	}
	for _, path := range []string{other.dir, b.dir, filepath.Dir(b.wish.Stdout), program} {
		for _, prefix := range []string{"", strings.Repeat("/..", 30), "/proc/1/root", "/proc/self/root/proc/1/cwd"} {
			got := b.execAs("root", "stat", prefix+path)
			if !strings.Contains(got, "no such file") && !strings.Contains(got, "permission denied") {
				t.Errorf("%s is seen: %s", prefix+path, got)
			}
		}
	}
	info := b.execAs("root", "cat", "/proc/self/mountinfo")
	for _, path := range []string{other.dir, "/docker.sock", "/nomad"} {
		if strings.Contains(info, path) {
			t.Errorf("%s is mounted:\n%s", path, info)
		}
	}
}

// A8: the ways out that kits for it try first. Container root has Garden's capabilities.
func TestExploits(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Process.User = "root"
	b.start()
	disk := unix.Mkdev(8, 0)
	for name, args := range map[string][]string{
		"mount a disk":             {"call", word(unix.SYS_MOUNT), "0", "0", "0", "0", "0"},
		"make a disk's device":     {"call", word(unix.SYS_MKNODAT), word(0xffffff9c), "0", word(unix.S_IFBLK | 0o600), word(disk)},
		"trace its parent":         {"call", word(unix.SYS_PTRACE), word(unix.PTRACE_ATTACH), "0"},
		"a release agent":          {"write", "/sys/fs/cgroup/release_agent", "/evil"},
		"a release agent of v1":    {"write", "/sys/fs/cgroup/memory/release_agent", "/evil"},
		"devices of its cgroup":    {"write", "/sys/fs/cgroup/devices/devices.allow", "a *:* rwm"},
		"more memory":              {"write", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"},
		"more memory of v2":        {"write", "/sys/fs/cgroup/memory.max", "max"},
		"a core pattern":           {"write", "/proc/sys/kernel/core_pattern", "|/evil"},
		"a helper of the kernel's": {"write", "/sys/kernel/uevent_helper", "/evil"},
		"a format of programs":     {"write", "/proc/sys/fs/binfmt_misc/register", ":evil:M::x::/evil:"},
		"its own id map":           {"write", "/proc/self/uid_map", "0 0 1"},
		"modules":                  {"call", word(unix.SYS_FINIT_MODULE), "0", "0", "0"},
		"another kernel":           {"call", word(unix.SYS_KEXEC_LOAD), "0", "0", "0", "0"},
		"the clock":                {"call", word(unix.SYS_CLOCK_SETTIME), "0", "0"},
		"a namespace of the host":  {"call", word(unix.SYS_SETNS), "0", "0"},
		"the host's reboot":        {"call", word(unix.SYS_REBOOT), "0", "0", "0"},
	} {
		if got := b.execAs("root", args...); !strings.Contains(got, "probe: ") || strings.Contains(got, "OK") {
			t.Errorf("%s: %q", name, got)
		} else if args[0] == "call" && !strings.Contains(got, "not permitted") && !strings.Contains(got, "bad address") && !strings.Contains(got, "no such process") {
			t.Errorf("%s: it is not for the lack of a right: %q", name, got)
		}
	}
}

// Container root cannot take its egress rules away, nor pass below them: its capabilities do not count in a network
// namespace that is the host's, whatever it is given, and whatever the filter lets through.
func TestEgress_cannotBeRemoved(t *testing.T) {
	for _, seccomp := range []string{"default", "off"} {
		w := newWorld(t)
		b := newBox(t, "sleep", "600")
		b.wish.NetNS, b.wish.Egress, b.wish.Seccomp = w.inside, &driver.Egress{Within: [][]driver.EgressRule{{}}}, seccomp
		b.wish.Security.CapAdd = []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}
		b.start()
		before := w.tables(t)
		if got := b.execAs("root", "packets"); !strings.Contains(got, "not permitted") {
			t.Errorf("seccomp %s: packet sockets: %q", seccomp, got)
		}
		for _, protocol := range []uint64{unix.IPPROTO_RAW, unix.IPPROTO_ICMP} {
			if got := b.execAs("root", "call", word(unix.SYS_SOCKET), word(unix.AF_INET), word(unix.SOCK_RAW), word(protocol)); !strings.Contains(got, "not permitted") {
				t.Errorf("seccomp %s: raw sockets: %q", seccomp, got)
			}
		}
		// A new user and network namespace has no way out, and the old one's rules stay.
		_ = b.execAs("root", "call", word(unix.SYS_UNSHARE), word(unix.CLONE_NEWUSER|unix.CLONE_NEWNET))
		if got := b.execAs("root", "write", "/proc/sys/net/ipv4/ip_forward", "1"); !strings.Contains(got, "probe: ") {
			t.Errorf("seccomp %s: the namespace's values can be written: %q", seccomp, got)
		}
		if w.tables(t) != before || before == "" {
			t.Errorf("seccomp %s: the rules have changed", seccomp)
		}
	}
}
