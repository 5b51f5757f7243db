package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/bundle"
)

// maxNodes bounds how many device nodes a container is given.
const maxNodes = 256

// makeNodes makes nodes of the container's own for the devices that it is given: the host's belong to users that it does
// not have. Everybody in the container may open them; what for, its cgroup says. They are in a file system of this
// process, which nobody else sees.
func (k *keeper) makeNodes() ([]bundle.Device, error) {
	if len(k.wish.Devices) == 0 {
		return nil, nil
	}
	dir := filepath.Join(string(k.dir), "devices")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make place of devices: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0711,size=64k"); err != nil {
		return nil, fmt.Errorf("mount devices: %w", err)
	}
	nodes, err := lookUpNodes(k.wish.Devices)
	if err != nil {
		return nil, err
	}
	owner, _ := k.wish.IDs.HostID(0)
	for n := range nodes {
		if nodes[n].Source, err = makeNode(filepath.Join(dir, strconv.Itoa(n)), nodes[n], int(owner)); err != nil {
			return nil, fmt.Errorf("device %s: %w", nodes[n].Target, err)
		}
	}
	return nodes, nil
}

func makeNode(at string, d bundle.Device, owner int) (string, error) {
	kind := uint32(unix.S_IFCHR)
	if d.Type == "b" {
		kind = unix.S_IFBLK
	}
	number := unix.Mkdev(uint32(d.Major), uint32(d.Minor)) //nolint:gosec // the kernel's own
	err := unix.Mknod(at, kind|0o666, int(number))         //nolint:gosec // the kernel's own
	return at, errors.Join(err, os.Chmod(at, 0o666), os.Chown(at, owner, owner))
}

// lookUpNodes asks the host what its nodes are.
func lookUpNodes(devices []driver.Device) ([]bundle.Device, error) {
	var nodes []bundle.Device
	for _, d := range devices {
		info, err := os.Stat(d.Source)
		if err != nil {
			return nil, fmt.Errorf("device: %w", err)
		}
		if !info.IsDir() {
			node, err := lookUpNode(d)
			if err != nil {
				return nil, err
			}
			nodes = append(nodes, node)
			continue
		}
		entries, err := os.ReadDir(d.Source)
		if err != nil {
			return nil, fmt.Errorf("device: %w", err)
		}
		for _, entry := range entries {
			if entry.Type()&os.ModeDevice == 0 {
				continue
			}
			node, err := lookUpNode(driver.Device{
				Source: filepath.Join(d.Source, entry.Name()), Target: filepath.Join(d.Target, entry.Name()), Access: d.Access,
			})
			if err != nil {
				return nil, err
			}
			nodes = append(nodes, node)
		}
	}
	if len(nodes) > maxNodes {
		return nil, fmt.Errorf("device: %d nodes are more than %d", len(nodes), maxNodes)
	}
	return nodes, nil
}

func lookUpNode(d driver.Device) (bundle.Device, error) {
	node := bundle.Device{Target: d.Target, Access: d.Access}
	var stat unix.Stat_t
	if err := unix.Stat(d.Source, &stat); err != nil {
		return node, &os.PathError{Op: "device", Path: d.Source, Err: err}
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		node.Type = "c"
	case unix.S_IFBLK:
		node.Type = "b"
	default:
		return node, fmt.Errorf("device: %s is no device", d.Source)
	}
	node.Major, node.Minor = int64(unix.Major(stat.Rdev)), int64(unix.Minor(stat.Rdev))
	return node, nil
}
