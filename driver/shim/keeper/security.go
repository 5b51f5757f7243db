package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"drover/driver/bundle"
	"drover/driver/runc"
)

// account finds a user of the container, with the groups that all of its processes have.
func (k *keeper) account(user string) (runc.User, error) {
	u, err := k.root.User(user)
	if err != nil {
		return runc.User{}, err
	}
	more, err := k.root.Groups(k.wish.Security.Groups)
	if err != nil {
		return runc.User{}, fmt.Errorf("group_add: %w", err)
	}
	for _, gid := range more {
		if !slices.Contains(u.Groups, gid) {
			u.Groups = append(u.Groups, gid)
		}
	}
	return u, nil
}

// filters is where compiled system call filters are kept, for the gate that loads them; empty when this container's is
// loaded by libcontainer. Who administers a container can put another /proc in the place of that by which a later process
// finds its gate. And a profile of the job's own would stay on the node after the job.
func (k *keeper) filters() string {
	s := k.wish.Security
	if len(s.Profile) > 0 || slices.Contains(slices.Concat(s.CapAdd, s.CapAddAny), "CAP_SYS_ADMIN") {
		return ""
	}
	return k.wish.Filters
}

// becomeRoot makes the calling thread, and it alone, the container's root: some values are its root's only, and not even
// the host's may write them.
func (k *keeper) becomeRoot() error {
	const same = ^uintptr(0)
	root, _ := k.wish.IDs.HostID(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(root), same); errno != 0 {
		return errno
	}
	return nil
}

// mountQueues mounts the host's message queues for the container to bind; not every host has them mounted.
func (k *keeper) mountQueues() (string, error) {
	path := filepath.Join(string(k.dir), "mqueue")
	if err := os.MkdirAll(path, 0o711); err != nil {
		return "", fmt.Errorf("make %s: %w", path, err)
	}
	if err := unix.Mount("mqueue", path, "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return "", fmt.Errorf("mount message queues: %w", err)
	}
	return path, nil
}

// gatherSecurity looks up what the rules of security need.
func (k *keeper) gatherSecurity(facts *bundle.Facts) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("read the kernel's release: %w", err)
	}
	facts.Kernel = unix.ByteSliceToString(uts.Release[:])
	facts.Throttles = throttles("/sys/devices/system/cpu")
	facts.ProcessLabel, facts.MountLabel = k.labels.process, k.labels.mount
	var err error
	if k.wish.Security.HostIPC {
		if facts.Queues, err = k.mountQueues(); err != nil {
			return err
		}
	}
	if k.wish.Security.Privileged {
		facts.Devices, err = hostDevices("/dev")
	}
	return err
}

// throttles lists the directories that tell how often each processor was too hot. They are a clock that containers share.
func throttles(cpus string) []string {
	entries, err := os.ReadDir(cpus)
	if err != nil {
		return nil
	}
	var list []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(strings.TrimPrefix(entry.Name(), "cpu")); err != nil {
			continue
		}
		path := filepath.Join(cpus, entry.Name(), "thermal_throttle")
		if _, err := os.Stat(path); err != nil {
			if len(list) == 0 {
				return nil // hosts have them for all processors or for none
			}
			continue
		}
		list = append(list, path)
	}
	return list
}

// hostDevices lists the host's devices, save for those that a container has of its own.
func hostDevices(dir string) ([]specs.LinuxDevice, error) {
	var list []specs.LinuxDevice
	own := []string{"pts", "shm", "fd", "mqueue", "console", "ptmx"}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // devices come and go
			return nil
		}
		if err != nil {
			return err
		}
		if filepath.Dir(path) == dir && slices.Contains(own, entry.Name()) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.Type()&fs.ModeDevice == 0 {
			return nil
		}
		var stat unix.Stat_t
		if unix.Lstat(path, &stat) != nil {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		kind := "c"
		if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			kind = "b"
		}
		mode := fs.FileMode(stat.Mode & 0o777)
		list = append(list, specs.LinuxDevice{
			Path: path, Type: kind, FileMode: &mode, UID: &stat.Uid, GID: &stat.Gid,
			Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	return list, nil
}

// setSysctls writes the values that the task asks for in the container's own network and IPC namespaces. Inside, they are
// read-only; and a user namespace that does not own the network could not write them at all.
func (k *keeper) setSysctls() error {
	net, ipc := map[string]string{}, map[string]string{}
	for name, value := range k.wish.Security.Sysctl {
		if strings.HasPrefix(name, "net.") {
			net[name] = value
		} else {
			ipc[name] = value
		}
	}
	var errs []error
	if len(net) > 0 {
		if k.wish.NetNS == "" {
			return errors.New("sysctl: net values need a network namespace of the task's own")
		}
		errs = append(errs, inNS(unix.CLONE_NEWNET, k.wish.NetNS, func() error { return k.writeSysctls(net) }))
	}
	if len(ipc) > 0 {
		path := filepath.Join("/proc", strconv.Itoa(k.init.PID()), "ns/ipc")
		errs = append(errs, inNS(unix.CLONE_NEWIPC, path, func() error { return k.writeSysctls(ipc) }))
	}
	return errors.Join(errs...)
}

// writeSysctls is called on a thread that is never used again.
func (k *keeper) writeSysctls(values map[string]string) error {
	root, err := os.OpenRoot("/proc/sys")
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for name, value := range values {
		path := strings.ReplaceAll(name, ".", "/")
		file, err := root.OpenFile(path, os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrPermission) && k.becomeRoot() == nil {
			file, err = root.OpenFile(path, os.O_WRONLY, 0)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sysctl %s: this kernel has no such value for each namespace", name)
		}
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
		_, err = file.WriteString(value)
		if err = errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("sysctl %s = %q: %w", name, value, err)
		}
	}
	return nil
}
