package selftest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// Files of the layer, by whose owners a container knows whether ids are mapped.
const (
	rootFile = "/home/of-root"
	vcapFile = "/home/of-vcap"
)

// readyFile is there once process 1 can be ended.
const readyFile = "/tmp/ready"

// seccompFilter is the kernel's number for a process whose system calls are filtered.
const seccompFilter = 2

// view is what a process in the container sees.
type view struct {
	UserNS     bool `json:"userns"`
	RootOwner  int  `json:"root_owner"`
	VcapOwner  int  `json:"vcap_owner"`
	Seccomp    int  `json:"seccomp"`
	NoNewPrivs bool `json:"no_new_privs"`
	// Capabilities is the effective set as the kernel writes it.
	Capabilities string `json:"capabilities"`
	// Writable are the kernel's files that can be opened for writing and should not; Unwritable is why / cannot be written.
	Writable   []string `json:"writable,omitempty"`
	Unwritable string   `json:"unwritable,omitempty"`
	Mounting   bool     `json:"mounting"`
}

// Inside is the shim's command self-test, which runs in the container: "wait" is process 1 and ends by SIGTERM, "look"
// prints what it sees.
func Inside(args []string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "wait":
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		if err := os.WriteFile(readyFile, nil, 0o600); err != nil {
			return fmt.Errorf("write to own files: %w", err)
		}
		select {
		case <-end:
		case <-time.After(2 * Limit): // the plugin was killed, and may never come back
		}
		return nil
	case len(args) == 1 && args[0] == "look":
		if err := awaitFirst(); err != nil {
			return err
		}
		seen, err := lookAround()
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(seen)
	}
	return errors.New("usage: self-test wait | look; the plugin runs it, in a container")
}

// awaitFirst waits until process 1 listens for its signal: before that it could not be ended by one.
func awaitFirst() error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for range 2000 {
		if _, err := os.Stat(readyFile); err == nil {
			return nil
		}
		<-again.C
	}
	return errors.New("process 1 does not begin")
}

func lookAround() (view, error) {
	var v view
	idMap, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return v, fmt.Errorf("read own map of ids: %w", err)
	}
	if fields := strings.Fields(string(idMap)); len(fields) > 1 {
		v.UserNS = fields[0] == "0" && fields[1] != "0"
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return v, fmt.Errorf("read own status: %w", err)
	}
	v.Seccomp, _ = strconv.Atoi(field(string(status), "Seccomp:")) // absent is 0, off
	v.NoNewPrivs = field(string(status), "NoNewPrivs:") == "1"
	v.Capabilities = field(string(status), "CapEff:")
	v.RootOwner, v.VcapOwner = owner(rootFile), owner(vcapFile)
	for _, path := range []string{"/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/kcore", "/sys/kernel/uevent_helper", rootFile} {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_ = file.Close()
			if path != rootFile && path != "/proc/kcore" { // a masked file is /dev/null
				v.Writable = append(v.Writable, path)
			}
		} else if path == rootFile {
			v.Unwritable = err.Error()
		}
	}
	v.Mounting = unix.Mount("none", "/tmp", "tmpfs", 0, "") == nil
	return v, nil
}

// field returns the value of a line of /proc/self/status.
func field(status, name string) string {
	_, rest, _ := strings.Cut(status, "\n"+name)
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func owner(path string) int {
	var stat unix.Stat_t
	if unix.Lstat(path, &stat) != nil {
		return -1
	}
	return int(stat.Uid)
}

// missing says what of the promised confinement the container does not have.
func (v view) missing(seccomp bool) error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(v.UserNS, "the container has the host's user ids")
	want(v.RootOwner == 0 && v.VcapOwner == driver.VcapID, "files of root and vcap belong to %d and %d in the container: its layer's ids are not mapped", v.RootOwner, v.VcapOwner)
	want(!seccomp || v.Seccomp == seccompFilter, "its system calls are not filtered (seccomp mode %d)", v.Seccomp)
	want(v.NoNewPrivs, "it can gain privileges (no_new_privs is off)")
	want(len(v.Writable) == 0, "it can write to the kernel's %s", strings.Join(v.Writable, ", "))
	want(v.Unwritable == "", "it cannot write to its own files: %s", v.Unwritable)
	want(!v.Mounting, "it can mount file systems")
	return errors.Join(errs...)
}
