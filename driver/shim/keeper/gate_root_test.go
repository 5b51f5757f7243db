//go:build root

package keeper_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// A container with a compiled filter has the one that libcontainer loads. Its parts come in any order, so what is compared
// is what they decide.
func TestGate_filterIsLibcontainers(t *testing.T) {
	var filters [][]byte
	for _, dir := range []string{"", filepath.Join(t.TempDir(), "filters")} {
		b := newBox(t, "sleep", "60")
		b.wish.Filters = dir
		b.start()
		filters = append(filters, filterOf(t, b.client.InitPID()))
		for _, line := range []string{"Seccomp:\t2", "Seccomp_filters:\t1", "NoNewPrivs:\t1"} {
			if status := b.exec("cat", "/proc/self/status"); !strings.Contains(status, line) {
				t.Errorf("an exec with filters %q has not %q:\n%s", dir, line, status)
			}
		}
	}
	compareFilters(t, filters[0], filters[1])
}

// compareFilters has two filters decide on calls of every architecture with arguments that rules look at.
func compareFilters(t *testing.T, libcontainers, gates []byte) {
	t.Helper()
	const x32, amd64, i386, arm64, arm = 0x40000000, 0xc000003e, 0x40000003, 0xc00000b7, 0x40000028
	for _, arch := range []uint32{amd64, i386, arm64, arm, 0} {
		for nr := range uint32(1200) {
			for _, arg := range []uint64{0, 1, 2, 8, 38, 39, 40, 41, 47, 0x11, 0x20000, 0x20008, 0x10000000, 0x7e020000, 0xffffffff, 1 << 40} {
				for _, call := range []uint32{nr, nr | x32} {
					a, b := decide(t, libcontainers, call, arch, arg), decide(t, gates, call, arch, arg)
					if a != b {
						t.Fatalf("architecture %#x, call %d, argument %#x: libcontainer decides %#x, the gate %#x", arch, call, arg, a, b)
					}
				}
			}
		}
	}
}

// decide runs a filter as the kernel does, for a call whose arguments are all the same.
func decide(t *testing.T, filter []byte, nr, arch uint32, arg uint64) uint32 {
	t.Helper()
	data := binary.NativeEndian.AppendUint32(nil, nr)
	data = binary.NativeEndian.AppendUint32(data, arch)
	data = binary.NativeEndian.AppendUint64(data, 0)
	for range 6 {
		data = binary.NativeEndian.AppendUint64(data, arg)
	}
	var a uint32
	for pc := 0; ; pc++ {
		in := filter[pc*8:]
		code, jt, jf, k := binary.NativeEndian.Uint16(in), int(in[2]), int(in[3]), binary.NativeEndian.Uint32(in[4:])
		jump := func(yes bool) int {
			if yes {
				return jt
			}
			return jf
		}
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.NativeEndian.Uint32(data[k:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= k
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			pc += jump(a == k)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			pc += jump(a > k)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			pc += jump(a >= k)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			pc += jump(a&k != 0)
		case unix.BPF_RET | unix.BPF_K:
			return k
		default:
			t.Fatalf("instruction %#x at %d", code, pc)
		}
	}
}

// filterOf reads a process's first filter from the kernel.
func filterOf(t *testing.T, pid int) []byte {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	filter := make([]byte, 4096*8)
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(unsafe.Pointer(&filter[0])), 0, 0)
	if errors.Is(errno, unix.EINVAL) || errors.Is(errno, unix.EIO) {
		t.Skipf("this kernel does not show filters: %v", errno)
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	return filter[:n*8]
}

// Nobody in a container may look into the gate, which has no filter yet, and nobody may change it.
func TestGate_isClosed(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	shimPID := b.signalShim(0)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", shimPID))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || !strings.HasPrefix(target, "/memfd:gate") {
			continue
		}
		info, err := os.Stat(link)
		if err != nil || info.Mode().Perm() != 0o111 {
			t.Errorf("gate is %v, %v", info.Mode(), err)
		}
		if file, err := os.OpenFile(link, os.O_RDWR, 0); err == nil {
			if _, err := file.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
				t.Errorf("write to the gate: %v", err)
			}
			_ = file.Close()
		}
		return
	}
	t.Error("the shim has no gate")
}

// A process that cannot be started says so, also from behind the gate.
func TestGate_tellsWhyNot(t *testing.T) {
	b := newBox(t, "sleep", "60").start()
	for name, want := range map[string]string{
		"/bin/missing": "no such file", "missing": "no such file", "/etc/passwd": "permission denied", "/bin": "permission denied",
	} {
		_, err := b.client.Exec(t.Context(), shim.ExecRequest{Process: driver.Process{Args: []string{name}}})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out bytes.Buffer
	exit, err := b.client.Exec(t.Context(), shim.ExecRequest{
		Process: driver.Process{Args: []string{"probe", "echo", "found"}, Env: []string{"PATH=/none:/etc/passwd::/bin"}}, Stdout: &out,
	})
	if err != nil || exit.Code != 0 || !strings.Contains(out.String(), "found") {
		t.Errorf("a program in PATH: %+v, %v, %q", exit, err, &out)
	}
}

// A damaged filter of the node is made again, and never used.
func TestGate_damagedFilter(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		b := newBox(t, "cat", "/proc/self/status")
		b.wish.Filters = dir
		b.start().wait()
		b.sees(b.out, "Seccomp:\t2")
		files, err := filepath.Glob(filepath.Join(dir, "*.bpf"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		if err := os.Truncate(files[0], 50); err != nil {
			t.Fatal(err)
		}
	}
}
