package keeper

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/rootfs"
)

// pinImage pins a directory of the root file system, which it makes when it is missing. Bound over itself before / becomes
// read-only, it stays writable, holds what the image has in it, and what is written goes where all goes that a container
// writes.
func (k *keeper) pinImage(m driver.Mount, at string) error {
	owner, _ := k.wish.IDs.HostID(0)
	dir, err := k.root.MakeDir(m.Target, int(owner))
	if err != nil {
		return err
	}
	return errors.Join(pinFile(dir, at), dir.Close())
}

// idMappable tells which mounts can be id-mapped, and which with all that is mounted below them. Without a user namespace
// none needs to be. File systems are asked once each.
func idMappable(c driver.Container) (can, tree map[string]bool) {
	can, tree = map[string]bool{}, map[string]bool{}
	asked := map[uint64]bool{}
	for _, m := range c.Mounts {
		if !m.IDMapped || c.IDs.Size == 0 {
			continue
		}
		var stat unix.Stat_t
		if unix.Stat(m.Source, &stat) != nil {
			continue // that the source is missing is told when it is mounted
		}
		answer, known := asked[stat.Dev]
		if !known {
			support, err := rootfs.Probe(m.Source)
			answer = err == nil && support.IDMap
			asked[stat.Dev] = answer
		}
		can[m.Source] = answer
		if answer && m.Recursive {
			all, err := rootfs.CanMapTree(m.Source)
			tree[m.Source] = err == nil && all
		}
	}
	return can, tree
}

// warnPlain says which mounts show other owners than the host's disk has.
func (k *keeper) warnPlain() {
	for _, m := range k.wish.Mounts {
		_, known := k.mappable[m.Source]
		switch {
		case !known: // not wanted, or not there
		case !k.mappable[m.Source]:
			k.warn("Mount at %s: the file system of its source cannot map ids, so that its files belong to nobody in the container; "+
				"use one that can (ext4, xfs, btrfs), or make its files accessible for everybody", m.Target)
		case m.Recursive && !k.mappableTree[m.Source]:
			k.warn("Mount at %s: something mounted below its source cannot map ids; its files belong to nobody in the container", m.Target)
		}
	}
}

// warn tells the task's owner of something, once the container has started.
func (k *keeper) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	k.log.Warn(text)
	k.warnings = append(k.warnings, text)
}
