package rootfs

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"drover/driver"
)

// idMap says how the ids on disk, from, are mapped to the ids that the container's processes have, to. Uid and gid
// change places with root's; zero changes nothing.
type idMap struct {
	from, to driver.IDRange
	uid, gid uint32
}

// layerMaps gives the map of each layer.
func layerMaps(root driver.RootFS, ids driver.IDRange) ([]idMap, error) {
	maps := make([]idMap, len(root.Layers))
	for n, layer := range root.Layers {
		m := mapping(layer.Stored, ids)
		if owner := root.Owner; owner != nil && n < owner.Layers {
			m.uid, m.gid = owner.UID, owner.GID
		}
		if m.uid >= m.to.Size || m.gid >= m.to.Size {
			return nil, fmt.Errorf("user %d:%d, to whom the image is to belong, has no place in a container of %d ids", m.uid, m.gid, m.to.Size)
		}
		maps[n] = m
	}
	return maps, nil
}

// mapping says how ids on disk become ids of the container's range.
func mapping(stored, ids driver.IDRange) idMap {
	if stored.Size == 0 {
		stored = driver.IDRange{Host: 0, Size: identitySize}
	}
	if ids.Size == 0 {
		ids = driver.IDRange{Host: 0, Size: identitySize}
	}
	size := min(stored.Size, ids.Size)
	return idMap{from: driver.IDRange{Host: stored.Host, Size: size}, to: driver.IDRange{Host: ids.Host, Size: size, Identity: ids.Identity}}
}

// needed says whether the ids differ at all.
func (m idMap) needed() bool { return m.from != m.to || m.uid != 0 || m.gid != 0 }

// host is the id that a file of an id on disk gets; root's for strangers.
func (m idMap) host(id, owner uint32) uint32 {
	if id -= m.from.Host; id >= m.from.Size { // also when it was below the range
		id = 0
	}
	switch id {
	case 0:
		id = owner
	case owner:
		id = 0
	}
	host, _ := m.to.HostID(id)
	return host
}

// idMaps makes user namespaces that say how a mount's ids are mapped, one for each map.
type idMaps struct {
	open map[idMap]*os.File
}

func (m *idMaps) close() {
	for _, file := range m.open {
		_ = file.Close()
	}
}

// get returns a user namespace that maps ids so.
func (m *idMaps) get(wanted idMap) (*os.File, error) {
	if file, ok := m.open[wanted]; ok {
		return file, nil
	}
	file, err := userNamespace(wanted.lines(wanted.uid), wanted.lines(wanted.gid))
	if err != nil {
		return nil, fmt.Errorf("make user namespace for ids %d-%d: %w", wanted.to.Host, wanted.to.Host+wanted.to.Size-1, err)
	}
	if m.open == nil {
		m.open = map[idMap]*os.File{}
	}
	m.open[wanted] = file
	return file, nil
}

// lines are the map as the kernel takes it, with an id that changes places with root's.
func (m idMap) lines(owner uint32) []syscall.SysProcIDMap {
	var lines []syscall.SysProcIDMap
	add := func(from, to, size uint32) {
		if host, _ := m.to.HostID(to); size > 0 {
			lines = append(lines, syscall.SysProcIDMap{ContainerID: int(m.from.Host + from), HostID: int(host), Size: int(size)})
		}
	}
	if owner == 0 && !m.to.Identity {
		add(0, 0, m.to.Size)
		return lines
	}
	if owner == 0 { // Garden's identity maps root elsewhere
		add(0, 0, 1)
		add(1, 1, m.to.Size-1)
		return lines
	}
	add(0, owner, 1)
	add(1, 1, owner-1)
	add(owner, 0, 1)
	add(owner+1, owner+1, m.to.Size-owner-1)
	return lines
}

// userNamespace makes a user namespace that nobody lives in. It takes a process to make one; ours is this program,
// traced, so that the kernel stops it before its first instruction, and killed.
func userNamespace(uids, gids []syscall.SysProcIDMap) (*os.File, error) {
	runtime.LockOSThread() // a traced process belongs to the thread that started it
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess("/proc/self/exe", []string{"userns"}, &os.ProcAttr{
		Dir: "/",
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: uids,
			GidMappings: gids,
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
