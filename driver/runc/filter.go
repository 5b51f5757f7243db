package runc

/*
#include "compile.h"
*/
import "C"

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"drover/driver"
)

// filterInstruction is the size of one instruction of a filter.
const filterInstruction = 8

// maxFilter is what the kernel takes at most.
const maxFilter = 4096 * filterInstruction

// filter is a container's system call filter as the kernel takes it.
type filter struct {
	flags   uint32
	program []byte
}

// compiledFilter returns the filter of a profile. It is compiled once for a profile, a kernel and a version of this program,
// and kept in a directory, since compiling takes longer than all else that a container's start asks of a processor.
func compiledFilter(profile *configs.Seccomp, dir string) (filter, error) {
	raw, err := json.Marshal(profile)
	if err != nil {
		return filter{}, fmt.Errorf("encode seccomp profile: %w", err)
	}
	path := filepath.Join(dir, filterName(raw))
	f, err := readFilter(path)
	if err == nil {
		return f, nil
	}
	if f, err = compileFilter(raw); err != nil {
		return filter{}, fmt.Errorf("compile seccomp profile: %w", err)
	}
	if err := f.write(path); err != nil {
		return filter{}, fmt.Errorf("keep seccomp filter: %w", err)
	}
	return f, nil
}

// filterName names everything that a compiled filter depends on.
func filterName(profile []byte) string {
	var name unix.Utsname
	_ = unix.Uname(&name) // empty then: one filter for all kernels that do not tell
	major, minor, micro := seccomp.Version()
	sum := sha256.New()
	_, _ = fmt.Fprintln(sum, driver.Version, runtime.GOARCH, major, minor, micro, unix.ByteSliceToString(name.Release[:]))
	_, _ = sum.Write(profile)
	return hex.EncodeToString(sum.Sum(nil)) + ".bpf"
}

// readFilter reads a filter that write wrote; a file that was cut short or changed is an error.
func readFilter(path string) (filter, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return filter{}, err
	}
	if len(raw) < sha256.Size || sha256.Sum256(raw[sha256.Size:]) != [sha256.Size]byte(raw) {
		return filter{}, fmt.Errorf("filter %s is damaged", path)
	}
	return parseFilter(raw[sha256.Size:])
}

func (f filter) bytes() []byte {
	return append(binary.NativeEndian.AppendUint32(nil, f.flags), f.program...)
}

func (f filter) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return err
	}
	body := f.bytes()
	sum := sha256.Sum256(body)
	_, err = file.Write(append(sum[:], body...))
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

func parseFilter(raw []byte) (filter, error) {
	const flags = 4
	if len(raw) <= flags || len(raw) > flags+maxFilter || (len(raw)-flags)%filterInstruction != 0 {
		return filter{}, fmt.Errorf("a seccomp filter of %d bytes", len(raw))
	}
	f := filter{flags: binary.NativeEndian.Uint32(raw), program: raw[flags:]}
	if f.flags&(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) != 0 {
		return filter{}, errors.New("a seccomp filter that asks another process")
	}
	f.flags &^= unix.SECCOMP_FILTER_FLAG_TSYNC // whoever loads it has one thread
	return f, nil
}

// compileFilter has another process of this program do what libcontainer does in a container, and takes the filter that it
// would have loaded there.
func compileFilter(profile []byte) (filter, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("/proc/self/exe", CompileCommand) //nolint:noctx // it ends by itself
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(profile), &out, &errs
	if err := cmd.Run(); err != nil {
		return filter{}, fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return parseFilter(out.Bytes())
}

// CompileCommand is the argument with which the binary must call CompileMain.
const CompileCommand = "filter"

// CompileMain reads a profile from standard input and writes its filter to standard output. It only returns when it fails.
func CompileMain(profile io.Reader) error {
	var config configs.Seccomp
	if err := json.NewDecoder(profile).Decode(&config); err != nil {
		return fmt.Errorf("decode seccomp profile: %w", err)
	}
	if errno := C.catch_filter(); errno != 0 {
		return fmt.Errorf("catch filter: %w", unix.Errno(errno))
	}
	if _, err := seccomp.InitSeccomp(&config); err != nil {
		return err
	}
	return errors.New("no filter was loaded")
}
