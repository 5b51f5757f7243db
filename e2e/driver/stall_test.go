//go:build e2e

package driver_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/e2e/plugin"
)

// A process that waits for a file system that does not answer cannot be killed. Its end is not told before it comes;
// who asks for it hears so in bounded time, the node works on, and asking again helps once the file system answers.
func TestStop_stalledFileSystem(t *testing.T) {
	dir := t.TempDir()
	release := stall(t, dir)
	n := start(t, plugin.Options{Config: `allow_host_paths = ["` + dir + `"]`})
	task := n.Task(t, n.probe(`volumes = ["`+dir+`:/mnt"]`, "then", "--", "echo", "ready", "--", "cat", "/mnt/never"))
	task.Start(t)
	ready(t, task, "ready")
	if !plugin.Eventually(10*time.Second, func() bool { return stuck(t, task) }) {
		t.Fatalf("the task does not wait for the file system: %s%s", task.Stdout(), task.Stderr())
	}
	t.Run("41 a stop that cannot succeed says so", func(t *testing.T) {
		began := time.Now()
		if err := n.StopTask(task.Config.ID, 100*time.Millisecond, ""); err == nil {
			t.Error("a task that cannot end has been stopped")
		} else {
			t.Logf("after %s: %v", time.Since(began).Round(time.Second), err)
		}
	})
	t.Run("52 others start meanwhile", func(t *testing.T) { contains(t, n.output(t, n.probe("", "id")), "uid=2000") })
	release()
	t.Run("41 and one that can, does", func(t *testing.T) {
		if err := n.StopTask(task.Config.ID, time.Second, ""); err != nil {
			t.Fatal(err)
		}
		if exit := task.Wait(t); exit.ExitCode == 0 {
			t.Errorf("ended with %+v", exit)
		}
		if err := n.DestroyTask(task.Config.ID, false); err != nil {
			t.Error(err)
		}
	})
}

// stuck reports whether a process of the task waits in the kernel where no signal reaches it.
func stuck(t *testing.T, task *plugin.Task) bool {
	t.Helper()
	var pid int
	for _, line := range strings.Fields(members(t, task)) {
		if _, err := fmt.Sscan(line, &pid); err != nil {
			continue
		}
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid)) // it may have ended
		if string(raw) == "request_wait_answer" || string(raw) == "fuse_simple_request" || string(raw) == "__fuse_simple_request" {
			return true
		}
	}
	return false
}

// Numbers of the kernel's FUSE protocol.
const (
	fuseLookup  = 1
	fuseGetattr = 3
	fuseInit    = 26
	fuseForget  = 2
)

// stall mounts a file system whose root is an empty directory, and which never answers when a file is looked up, until
// release is called: then the connection is cut.
func stall(t *testing.T, dir string) (release func()) {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("this kernel has no FUSE: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40777,user_id=0,group_id=0,allow_other", device)
	if err := unix.Mount("stall", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatal(err)
	}
	cut := func() { _ = os.WriteFile(connection(t, dir), []byte("1"), 0) }
	t.Cleanup(func() {
		cut()
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = unix.Close(device)
	})
	go serveStall(device)
	return cut
}

// connection is the file by which the kernel lets go of a FUSE file system.
func connection(t *testing.T, dir string) string {
	t.Helper()
	const control = "/sys/fs/fuse/connections"
	if _, err := os.Stat(control + "/."); err == nil {
		_ = unix.Mount("fusectl", control, "fusectl", 0, "") // it may be there already
	}
	var stat unix.Stat_t
	if err := unix.Lstat(dir, &stat); err != nil {
		return os.DevNull // cut already
	}
	return fmt.Sprintf("%s/%d/abort", control, unix.Minor(stat.Dev))
}

// serveStall answers what is needed for a mount, says that most is not implemented, and keeps lookups waiting.
func serveStall(device int) {
	request := make([]byte, 1<<20)
	for {
		size, err := unix.Read(device, request)
		if err != nil || size < 40 {
			return
		}
		var body []byte
		code := int32(0)
		switch binary.NativeEndian.Uint32(request[4:]) {
		case fuseLookup, fuseForget:
			continue
		case fuseInit:
			body = make([]byte, 64)
			binary.NativeEndian.PutUint32(body, 7)
			binary.NativeEndian.PutUint32(body[4:], 31)
			binary.NativeEndian.PutUint32(body[20:], 4096) // max_write
		case fuseGetattr:
			body = make([]byte, 16+88)
			binary.NativeEndian.PutUint64(body[16:], 1)                     // inode
			binary.NativeEndian.PutUint32(body[16+60:], unix.S_IFDIR|0o777) // mode
			binary.NativeEndian.PutUint32(body[16+64:], 2)                  // links
		default:
			code = -int32(unix.ENOSYS)
		}
		answer := make([]byte, 16, 16+len(body))
		binary.NativeEndian.PutUint32(answer, uint32(16+len(body)))
		binary.NativeEndian.PutUint32(answer[4:], uint32(code))
		copy(answer[8:], request[8:16])
		if _, err := unix.Write(device, append(answer, body...)); err != nil {
			return
		}
	}
}
