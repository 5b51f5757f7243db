package rootfs

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"drover/driver"
)

// idMaps makes user namespaces that say how a mount's ids are mapped, one for each pair of ranges.
type idMaps struct {
	open map[[2]driver.IDRange]*os.File
}

func (m *idMaps) close() {
	for _, file := range m.open {
		_ = file.Close()
	}
}

// get returns a user namespace in which the ids on disk, from, are the ids that the container's processes have, to.
func (m *idMaps) get(from, to driver.IDRange) (*os.File, error) {
	key := [2]driver.IDRange{from, to}
	if file, ok := m.open[key]; ok {
		return file, nil
	}
	file, err := userNamespace(syscall.SysProcIDMap{ContainerID: int(from.Host), HostID: int(to.Host), Size: int(to.Size)})
	if err != nil {
		return nil, fmt.Errorf("make user namespace for ids %d-%d: %w", to.Host, to.Host+to.Size-1, err)
	}
	if m.open == nil {
		m.open = map[[2]driver.IDRange]*os.File{}
	}
	m.open[key] = file
	return file, nil
}

// userNamespace makes a user namespace that nobody lives in. It takes a process to make one; ours is this program,
// traced, so that the kernel stops it before its first instruction, and killed.
func userNamespace(mapping syscall.SysProcIDMap) (*os.File, error) {
	runtime.LockOSThread() // a traced process belongs to the thread that started it
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess("/proc/self/exe", []string{"userns"}, &os.ProcAttr{
		Dir: "/",
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{mapping},
			GidMappings: []syscall.SysProcIDMap{mapping},
			Ptrace:      true,
			Pdeathsig:   syscall.SIGKILL,
		},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = process.Kill()
		_, _ = process.Wait()
	}()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", process.Pid))
}
