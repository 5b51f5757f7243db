//go:build root

package keeper_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// word writes a number for the probe.
func word(n uint64) string { return fmt.Sprintf("%#x", n) }

func TestConfinement_calls(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Process.User = "root"
	b.start()
	const upper = 1 << 32 // the kernel does not look at it, and a filter must not either
	for _, test := range []struct {
		name   string
		number uint64
		args   []uint64
		want   string
	}{
		{"an ordinary call", unix.SYS_GETPID, nil, "OK"},
		{"an ordinary socket", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM}, "OK"},
		{"sockets of the hypervisor", unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, "not permitted"},
		{"sockets of the hypervisor in disguise", unix.SYS_SOCKET, []uint64{upper | unix.AF_VSOCK, unix.SOCK_STREAM}, "not permitted"},
		{"sockets of the kernel's ciphers", unix.SYS_SOCKET, []uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}, "not permitted"},
		{"sockets of the kernel's ciphers in disguise", unix.SYS_SOCKET, []uint64{upper | unix.AF_ALG, unix.SOCK_SEQPACKET}, "not permitted"},
		{"raw sockets", unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_RAW}, "not permitted"},
		{"a user namespace", unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWUSER}, "not permitted"},
		{"a user namespace by clone", unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, "not permitted"},
		{"clone3", unix.SYS_CLONE3, nil, "not implemented"},
		{"new mounts", unix.SYS_FSOPEN, nil, "not permitted"},
		{"programs for the kernel", unix.SYS_BPF, nil, "not permitted"},
		{"rings", unix.SYS_IO_URING_SETUP, []uint64{1}, "not permitted"},
		{"keyrings", unix.SYS_KEYCTL, nil, "not permitted"},
		{"faults of one's own", unix.SYS_USERFAULTFD, nil, "not permitted"},
		{"counters", unix.SYS_PERF_EVENT_OPEN, nil, "not permitted"},
		{"files by their handles", unix.SYS_OPEN_BY_HANDLE_AT, nil, "not permitted"},
		{"the kernel's log", unix.SYS_SYSLOG, []uint64{3}, "not permitted"},
	} {
		words := []string{"call", word(test.number)}
		for _, arg := range test.args {
			words = append(words, word(arg))
		}
		if got := b.execAs("root", words...); !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// execAs runs a command, which may fail, as a user of the container and returns its output.
func (b *box) execAs(user string, args ...string) string {
	b.t.Helper()
	var out bytes.Buffer
	_, err := b.client.Exec(b.t.Context(), shim.ExecRequest{
		Process: driver.Process{Args: append([]string{"/bin/probe"}, args...), User: user}, Stdout: &out, Stderr: &out,
	})
	if err != nil {
		b.t.Fatalf("exec %q: %v", args, err)
	}
	return out.String()
}

// The shim reads a container's files as the host's root, so that a link to what only that may read must lead nowhere.
func TestHostileFiles(t *testing.T) {
	for _, target := range []string{"/proc/kallsyms", "/proc/kmsg", "/proc/1/mem", "/proc/1/environ", "/sys/kernel/notes", "/dev/zero", "/dev/tty"} {
		t.Run(target, func(t *testing.T) {
			server := newBlobs(t, nil)
			for name, task := range map[string]models.TaskDefinition{
				"uploaded": {Action: models.WrapAction(models.Timeout(
					&models.UploadAction{From: "/tmp/droplet", To: server.URL + "/up", User: "vcap"}, 5*time.Second))},
				"a result":   {Action: models.WrapAction(probe("APP", "echo")), ResultFile: "/tmp/droplet"},
				"an account": {Action: models.WrapAction(models.Timeout(probe("APP", "echo"), 5*time.Second))},
			} {
				b := taskBox(t, task)
				b.replaceByLink("tmp/droplet", target)
				if name == "an account" {
					b.replaceByLink("etc/passwd", target)
				}
				exit := b.start().wait()
				if exit.Code == 0 || exit.Result != "" || strings.Contains(exit.Reason, "timeout") {
					t.Errorf("as %s it is read: exit is %+v, uploaded %d bytes", name, exit, len(server.got["/up"]))
				}
			}
		})
	}
}

// Nothing of a container is any business of the other users of its host.
func TestStateDir_isClosed(t *testing.T) {
	b := newBox(t, "then", "--", "write", "/tmp/open", "x", "--", "sleep", "60")
	b.start()
	eventually(t, func() (bool, string) {
		_, err := os.Stat(filepath.Join(b.dir, "disk/upper/tmp/open"))
		return err == nil, fmt.Sprint(err)
	})
	asStranger := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.CombinedOutput()
	}
	if out, err := asStranger("stat", filepath.Join(b.dir, "rootfs")); err != nil {
		t.Fatalf("the test's directory is closed itself: %s", out)
	}
	for _, name := range []string{
		"container.json", "init.json", "shim.log", "shim.sock", "events.jsonl", "disk/upper/tmp/open", "runc/" + b.wish.ID + "/state.json",
	} {
		path := filepath.Join(b.dir, name)
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		if out, err := asStranger("cat", path); err == nil {
			t.Errorf("%s can be read: %.100s", name, out)
		}
	}
	if out, err := asStranger("ls", b.dir); err == nil {
		t.Errorf("the directory can be listed: %s", out)
	}
}

func TestMounts_suidAndDevices(t *testing.T) {
	b := newBox(t, "cat", "/proc/self/mountinfo")
	b.wish.Mounts = []driver.Mount{{Source: t.TempDir(), Target: "/plain"}, {Source: t.TempDir(), Target: "/mapped", IDMapped: true}}
	b.start().wait()
	for line := range strings.Lines(b.out.String()) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			t.Fatalf("line of mountinfo: %q", line)
		}
		// Devices, and what hides a file behind one, are in /dev and of the host's making.
		device := strings.Contains(line, " - devtmpfs ")
		if at, options := fields[4], strings.Split(fields[5], ","); !device && !slices.Contains(options, "nosuid") && !slices.Contains(options, "ro") {
			t.Errorf("%s is mounted with %s", at, fields[5])
		} else if !device && at != "/dev" && at != "/dev/pts" && !slices.Contains(options, "nodev") && !slices.Contains(options, "ro") {
			t.Errorf("%s is mounted with %s", at, fields[5])
		}
	}
}

// A neighbour in the allocation can write to the directory that holds the one of logs.
func TestMounts_linksOfNeighbours(t *testing.T) {
	victim := t.TempDir()
	if err := os.WriteFile(filepath.Join(victim, "secret"), []byte("the host's secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	if err := os.MkdirAll(filepath.Join(base, "alloc", "logs"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "alloc", "logs", "mine"), []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(base), 0o711); err != nil {
		t.Fatal(err)
	}
	mount := driver.Mount{Source: filepath.Join(base, "alloc/logs"), Base: base, Target: "/alloc/logs", ReadOnly: true, IDMapped: true}
	t.Run("what is no link is mounted", func(t *testing.T) {
		b := newBox(t, "cat", "/alloc/logs/mine")
		b.wish.Mounts = []driver.Mount{mount}
		if exit := b.start().wait(); exit.Code != 0 {
			t.Errorf("exit is %+v: %s", exit, b.errs)
		}
		b.sees(b.out, "mine")
	})
	t.Run("links are refused", func(t *testing.T) {
		if err := os.RemoveAll(mount.Source); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, mount.Source); err != nil {
			t.Fatal(err)
		}
		b := newBox(t, "cat", "/alloc/logs/secret")
		b.wish.Process.User, b.wish.Mounts = "root", []driver.Mount{mount}
		if b.tryToRun() {
			t.Errorf("it runs, and says %q", b.out)
		}
	})
}

func TestStop_bySignalsThatDoNotExist(t *testing.T) {
	b := newBox(t, "trap")
	b.start()
	b.sees(b.out, "ready")
	if err := b.client.Stop(t.Context(), "NONSENSE", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	b.sees(b.out, "got SIGTERM")
}

// An agent may have been started with files that it knows nothing of.
func TestShim_keepsInheritedFilesToItself(t *testing.T) {
	leak, err := unix.Dup(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(leak) })
	b := newBox(t, "then", "--", "ls", "/proc/self/fd", "--", "echo", "listed", "--", "sleep", "60").start()
	b.sees(b.out, "listed")
	for name := range strings.Lines(b.out.String()) {
		if name = strings.TrimSpace(name); name != "listed" && len(name) > 1 {
			t.Errorf("the container has descriptor %s", name)
		}
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", b.signalShim(0), leak))
	if errors.Is(err, os.ErrNotExist) {
		return // something on the way has closed it
	}
	_, after, found := strings.Cut(string(info), "flags:")
	var flags int
	if _, err := fmt.Sscanf(after, "%o", &flags); !found || err != nil || flags&unix.O_CLOEXEC == 0 {
		t.Errorf("the shim would hand it on: %s", info)
	}
}
