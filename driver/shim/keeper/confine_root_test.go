//go:build root

package keeper_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/driver"
	"drover/driver/shim"
)

// gardenCapabilities is what root may do, as the kernel writes it.
const gardenCapabilities = "00000000a80425fb"

func TestConfinement(t *testing.T) {
	for _, test := range []struct {
		name string
		user string
		args []string
		want string
	}{
		{"vcap gains no privileges", "vcap", []string{"status", "NoNewPrivs"}, "\t1"},
		{"vcap is filtered", "vcap", []string{"status", "Seccomp"}, "\t2"},
		{"vcap has no capability", "vcap", []string{"status", "CapEff"}, "0000000000000000"},
		{"vcap can get no capability", "vcap", []string{"status", "CapBnd"}, "0000000000000000"},
		{"root has Garden's capabilities", "root", []string{"status", "CapEff"}, gardenCapabilities},
		{"root gains no privileges", "root", []string{"status", "NoNewPrivs"}, "\t1"},
		{"root is filtered", "root", []string{"status", "Seccomp"}, "\t2"},
		{"core files are not written", "vcap", []string{"limit", "Max core file size"}, " 0 "},
		{"open files are limited", "vcap", []string{"limit", "Max open files"}, "16384"},
		{"it is not protected from the kernel's killer", "vcap", []string{"cat", "/proc/self/oom_score_adj"}, "0\n"},
		{"it has a host name of its own", "vcap", []string{"cat", "/etc/hostname"}, "box\n"},
		{"keys are masked", "root", []string{"cat", "/proc/keys", "/proc/timer_list"}, ""},
		{"it is alone", "vcap", []string{"cat", "/proc/1/cmdline"}, "/bin/probe"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, test.args...)
			b.wish.Process.User = test.user
			b.start()
			if exit := b.wait(); exit.Code != 0 {
				t.Fatalf("exit is %+v, output %s%s", exit, b.out, b.errs)
			}
			if test.want == "" && b.out.String() != "" {
				t.Errorf("it can read %q", b.out)
			}
			b.sees(b.out, test.want)
		})
	}
}

func TestConfinement_refusals(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
	}{
		{"sysctls are read-only", []string{"write", "/proc/sys/kernel/hostname", "x"}},
		{"sysfs is read-only", []string{"write", "/sys/kernel/mm/transparent_hugepage/enabled", "never"}},
		{"sysrq is read-only", []string{"write", "/proc/sysrq-trigger", "h"}},
		{"the host's log is unreadable", []string{"cat", "/proc/kmsg"}},
		{"files of strangers are unreadable", []string{"cat", "/dev/mem"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, test.args...)
			b.wish.Process.User = "root"
			if exit := b.start().wait(); exit.Code != 1 {
				t.Errorf("exit is %+v, output %s%s", exit, b.out, b.errs)
			}
		})
	}
}

func TestConfinement_processesAreLimited(t *testing.T) {
	b := newBox(t, "fork", "200")
	b.wish.Limits.PIDs = 40
	b.start()
	b.sees(b.out, "of 200")
	if strings.Contains(b.out.String(), "started 200") {
		t.Errorf("no limit: %s", b.out)
	}
}

func TestConfinement_rootIsNobodyOutside(t *testing.T) {
	b := newBox(t, "then", "--", "cat", "/proc/self/uid_map", "--", "write", "/tmp/mine", "x", "--", "stat", "/bin/probe", "/home/vcap", "/tmp/mine", "--", "sleep", "60")
	b.wish.Process.User = "root"
	b.start()
	b.sees(b.out, "/tmp/mine")
	var id struct{ host, size string }
	fields := strings.Fields(b.out.String())
	id.host, id.size = fields[1], fields[2]
	if id.host == "0" || id.size != "65536" {
		t.Errorf("ids are mapped as %+v", id)
	}
	info, err := os.Stat(filepath.Join(b.dir, "disk/upper/tmp/mine"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := ownerOf(info); owner != b.wish.IDs.Host {
		t.Errorf("root's file belongs to %d on the host, want %d", owner, b.wish.IDs.Host)
	}
	if text := b.out.String(); !strings.Contains(text, " 2000 ") && !strings.Contains(text, "2000") {
		t.Errorf("vcap's home is not vcap's: %s", text)
	}
}

func TestMounts(t *testing.T) {
	host := t.TempDir()
	for _, path := range []string{filepath.Dir(host), host} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "note"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(host, driver.VcapID, driver.VcapID); err != nil {
		t.Fatal(err)
	}
	t.Run("an id-mapped one stores container ids", func(t *testing.T) {
		b := newBox(t, "then", "--", "cat", "/data/note", "--", "write", "/data/mine", "x")
		b.wish.Mounts = []driver.Mount{{Source: host, Target: "/data", IDMapped: true}}
		if exit := b.start().wait(); exit.Code != 0 {
			t.Fatalf("exit is %+v: %s", exit, b.errs)
		}
		info, err := os.Stat(filepath.Join(host, "mine"))
		if err != nil {
			t.Fatal(err)
		}
		if owner := ownerOf(info); owner != driver.VcapID {
			t.Errorf("vcap's file belongs to %d on the host", owner)
		}
	})
	t.Run("a read-only one cannot be written", func(t *testing.T) {
		b := newBox(t, "write", "/data/other", "x")
		b.wish.Mounts = []driver.Mount{{Source: host, Target: "/data", IDMapped: true, ReadOnly: true}}
		if exit := b.start().wait(); exit.Code == 0 {
			t.Error("it was written")
		}
	})
	t.Run("one that is not executable does not execute", func(t *testing.T) {
		probe := filepath.Join(newBox(t).wish.RootFS.Layers[0].Dir, "bin")
		b := newBox(t)
		b.wish.Process.Args = []string{"/data/probe", "echo"}
		b.wish.Mounts = []driver.Mount{{Source: probe, Target: "/data", NoExec: true}}
		_, err := shim.Start(t.Context(), program, b.dir, b.wish)
		t.Cleanup(b.destroy)
		if err == nil {
			t.Error("it was executed")
		}
	})
}

// replaceByLink makes a path of the image a link.
func (b *box) replaceByLink(path, target string) {
	b.t.Helper()
	path = filepath.Join(b.wish.RootFS.Layers[0].Dir, path)
	if err := os.RemoveAll(path); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		b.t.Fatal(err)
	}
}

// tryToRun runs the container to its end, unless it is refused; it tells which.
func (b *box) tryToRun() bool {
	b.t.Helper()
	client, err := shim.Start(b.t.Context(), program, b.dir, b.wish)
	b.t.Cleanup(b.destroy)
	if err != nil {
		b.t.Logf("refused: %v", err)
		return false
	}
	b.client = client
	b.t.Cleanup(func() { _ = client.Close() })
	b.wait()
	return true
}

func TestHostileRootFS(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(victim)
	for _, test := range []struct {
		name       string
		path, link string // path becomes a link
	}{
		{"proc leads out", "proc", dir},
		{"proc leads to etc", "proc", "/etc"},
		{"sys leads out", "sys", dir},
		{"dev leads out", "dev", dir},
		{"dev leads up", "dev", "../../../../../../../.." + dir},
		{"passwd leads out", "etc/passwd", victim},
		{"group is a loop", "etc/group", "/etc/group"},
		{"hostname leads out", "etc/hostname", victim},
		{"resolv.conf leads out", "etc/resolv.conf", "/proc/self/fd/7"},
		{"home leads out", "home", dir},
		{"tmp leads out", "tmp", dir},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, "then", "--", "id", "--", "status", "NoNewPrivs")
			b.wish.ResolvConf, b.wish.Hosts = "nameserver 192.0.2.1\n", "127.0.0.1 localhost\n"
			b.wish.Process.User = "2000"
			b.wish.Mounts = []driver.Mount{{Source: t.TempDir(), Target: "/tmp/mounted"}}
			b.replaceByLink(test.path, test.link)
			b.tryToRun()
			text, err := os.ReadFile(victim)
			if err != nil || string(text) != "secret\n" {
				t.Errorf("the host's file is %q, %v", text, err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("the host's directory holds %v, %v", entries, err)
			}
			if strings.Contains(b.out.String()+b.errs.String(), "secret") {
				t.Error("the host's file was read")
			}
		})
	}
}

func TestHostileRootFS_accountsThatHang(t *testing.T) {
	b := newBox(t, "id")
	path := filepath.Join(b.wish.RootFS.Layers[0].Dir, "etc/passwd")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mkfifo(t, path)
	_, err := shim.Start(t.Context(), program, b.dir, b.wish)
	t.Cleanup(b.destroy)
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error is %v", err)
	}
}

func TestHostileRootFS_workDirOfADescriptor(t *testing.T) {
	for _, dir := range []string{"/proc/self/fd/7", "/proc/self/fd/3", "/proc/self/cwd"} {
		b := newBox(t, "ls", ".")
		b.wish.Process.Dir = dir
		if b.tryToRun() && strings.Contains(b.out.String(), ".json") {
			t.Errorf("%s shows the host: %s", dir, b.out)
		}
	}
}
