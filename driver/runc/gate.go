package runc

/*
#include "gate.h"
*/
import "C"

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// gatePath is how a container's process names the gate, which it has as descriptor 3.
const gatePath = "/proc/self/fd/3"

// openGate makes the program that loads a filter and becomes another program (gate.c). It is a file in memory that nobody
// can change, and that a container may execute but not read.
func openGate(f filter) (*os.File, error) {
	image, err := gateImage(f)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("gate", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3, where all such files can be executed
		fd, err = unix.MemfdCreate("gate", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make gate: %w", err)
	}
	file := os.NewFile(uintptr(fd), "gate")
	_, err = file.Write(image)
	if err == nil {
		err = unix.Fchmod(fd, 0o111)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("make gate: %w", err)
	}
	return file, nil
}

// gateImage lays out a program: headers, code, and at GATE_DATA the filter.
func gateImage(f filter) ([]byte, error) {
	size := uintptr(C.gate_size())
	if size == 0 || size > C.GATE_DATA-C.GATE_CODE {
		return nil, fmt.Errorf("the gate's code has %d bytes", size)
	}
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	const headers, program = 64, 56
	var data C.struct_gate_data // for its layout
	at := C.GATE_DATA + unsafe.Sizeof(data)
	total := uint64(at) + uint64(len(f.program))
	var image bytes.Buffer
	head := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: C.GATE_ADDRESS + C.GATE_CODE + uint64(C.gate_start()), Phoff: headers, Ehsize: headers, Phentsize: program, Phnum: 2,
	}
	segments := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: C.GATE_ADDRESS, Paddr: C.GATE_ADDRESS, Filesz: total, Memsz: total, Align: 1 << 16},
		{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16},
	}
	if err := errors.Join(binary.Write(&image, binary.LittleEndian, head), binary.Write(&image, binary.LittleEndian, segments)); err != nil {
		return nil, fmt.Errorf("lay out gate: %w", err)
	}
	out := make([]byte, total)
	copy(out, image.Bytes())
	copy(out[C.GATE_CODE:], unsafe.Slice((*byte)(C.gate_code()), size))
	binary.LittleEndian.PutUint64(out[C.GATE_DATA+unsafe.Offsetof(data.flags):], uint64(f.flags))
	fprog := C.GATE_DATA + unsafe.Offsetof(data.program)
	binary.LittleEndian.PutUint16(out[fprog+unsafe.Offsetof(data.program.len):], uint16(len(f.program)/filterInstruction)) //nolint:gosec // filters are bounded
	binary.LittleEndian.PutUint64(out[fprog+unsafe.Offsetof(data.program.filter):], C.GATE_ADDRESS+uint64(at))
	copy(out[at:], f.program)
	return out, nil
}

// gateLabel marks a container, in libcontainer's state, whose processes all pass the gate.
const gateLabel = "drover.gate=1"

// gateFile is the container's filter, beside libcontainer's state.
const gateFile = "filter"

// gateable tells whether a container's filter can be loaded by the gate. Without a user namespace, or with new privileges,
// the container's root could look into the gate; and a security module's profile is for the program and not for the gate.
func gateable(spec *specs.Spec, config *configs.Config) bool {
	p := spec.Process
	if p == nil || p.Capabilities != nil && slices.Contains(p.Capabilities.Bounding, "CAP_SYS_ADMIN") {
		return false // it could put another /proc over its own, by which the gate is found
	}
	return config.Seccomp != nil && config.Seccomp.ListenerPath == "" && config.Namespaces.Contains(configs.NEWUSER) &&
		p.NoNewPrivileges && p.ApparmorProfile == "" && p.SelinuxLabel == "" && config.ProcessLabel == "" &&
		slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/proc" && m.Type == "proc" })
}

// makeGate makes the container's gate, and keeps its filter for processes to come.
func (c *Container) makeGate(o Options, config *configs.Config) error {
	f, err := compiledFilter(config.Seccomp, o.Filters)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.State, 0o711); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := f.write(filepath.Join(o.State, gateFile)); err != nil {
		return fmt.Errorf("keep filter: %w", err)
	}
	c.gate, err = openGate(f)
	return err
}

func (c *Container) loadGate(state string) error {
	f, err := readFilter(filepath.Join(state, gateFile))
	if err != nil {
		return fmt.Errorf("the container's system call filter: %w", err)
	}
	c.gate, err = openGate(f)
	return err
}

// pass is a process's way through the gate. A nil one is that of a process without a gate.
type pass struct {
	name        string
	read, write *os.File
}

// throughGate makes a process pass the gate first.
func (c *Container) throughGate(p *libcontainer.Process) (*pass, error) {
	if c.gate == nil {
		return nil, nil //nolint:nilnil // see pass
	}
	if p.NoNewPrivileges == nil || !*p.NoNewPrivileges {
		return nil, errors.New("a process with new privileges cannot pass the container's gate")
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	made := &pass{name: p.Args[0], read: read, write: write}
	p.ExtraFiles = append([]*os.File{c.gate, write}, p.ExtraFiles...)
	p.Args = append([]string{gatePath}, p.Args...)
	return made, nil
}

func (p *pass) close() {
	if p != nil {
		_ = p.read.Close()
		_ = p.write.Close()
	}
}

// wait returns once the process has become its program, or has told why it cannot.
func (p *pass) wait() error {
	if p == nil {
		return nil
	}
	defer p.close()
	_ = p.write.Close()
	var r struct{ Stage, Error int32 }
	err := binary.Read(p.read, binary.NativeEndian, &r)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("start %q: %w", p.name, err)
	case r.Stage == C.GATE_FILTER:
		return fmt.Errorf("start %q: load system call filter: %w", p.name, unix.Errno(r.Error)) //nolint:gosec // an error number
	}
	return fmt.Errorf("exec %q: %w", p.name, unix.Errno(r.Error)) //nolint:gosec // an error number
}
