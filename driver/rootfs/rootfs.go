// Package rootfs makes a container's root file system of read-only layers: an overlay with a writable directory of the
// container's own on top.
//
// Layers are on disk once for each node, owned by one range of ids, while every container has a range of its own. So
// each layer whose ids differ is mounted through a map of ids, by the kernel and without copying, and the overlay is
// put over these mounts. Nothing on disk is changed.
//
//	target, err := rootfs.Mount(container.RootFS, container.IDs, stateDir)
//
// Mount is called in a mount namespace that is private to one task's shim: the mounts end with it, whoever dies, and
// nothing stays mounted on the host. The overlay keeps its own references to its layers; their mounts are undone
// before Mount returns.
//
// An image that wrote as root can belong to another user of the container, Owner: in the maps of the image's layers, root
// and that user change places. So it costs nothing, and containers with different owners share the layers on disk. What
// is written goes into the container's own directory under the owner's id, as the overlay sees it. A set-user-id program
// of root's is then one of the owner's, which gives nobody anything; and overlays are mounted nosuid.
//
// Overlays are mounted with userxattr: deletions are character devices 0:0, and directories that hide what is below
// have the attribute user.overlay.opaque. Of the attributes of a directory that is in several layers the topmost
// layer's count; so a layer that adds /home/vcap/app must own /home the way the stack does.
//
// They are mounted volatile, too: what a container writes to its own files ends with it, and need not outlive a crash of
// the host. Otherwise the kernel would write back the host's whole file system, whatever else is on it, each time that a
// container ends. Calls of fsync on such files succeed at once; in directories that are bound into the container, which
// may outlive it, they do what they say. A directory that was mounted so is never mounted again.
//
// Modes: the directories above the state directory must let the container's root walk through them (o+x), for its
// init opens the target by its path; layers need no such thing, since they are opened by the caller, who is root.
//
// RootFS.ReadOnly is not acted on here: mount points have to be made first. The OCI spec's root.readonly does it.
package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// ErrUnsupported is a kernel or file system that cannot map ids of a layer's mount.
var ErrUnsupported = errors.New("id-mapped layers are not possible here")

// maxLayers is how many lower directories an overlay takes.
const maxLayers = 500

// identitySize is how many ids exist in a container that has no range.
const identitySize = 65536

// Mount puts the layers together and returns the path of the container's root. Below dir it makes rootfs, the mount
// point, and disk, with upper and work, the container's own files: users of the host are not to read them, whatever
// modes the container gives them.
func Mount(root driver.RootFS, ids driver.IDRange, dir string) (target string, err error) {
	if err := check(root); err != nil {
		return "", err
	}
	maps, err := layerMaps(root, ids)
	if err != nil {
		return "", err
	}
	target = filepath.Join(dir, "rootfs")
	for _, made := range []struct {
		name string
		mode os.FileMode
	}{{"disk", 0o700}, {"disk/upper", 0o755}, {"disk/work", 0o700}, {"rootfs", 0o755}, {"l", 0o700}} {
		if err := os.Mkdir(filepath.Join(dir, made.name), made.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("make root file system: %w", err)
		}
	}
	if err := dressUpper(filepath.Join(dir, "disk/upper"), root.Layers[len(root.Layers)-1], maps[len(maps)-1]); err != nil {
		return "", err
	}
	kept := distinct(root.Layers)
	users := &idMaps{}
	defer users.close()
	links := filepath.Join(dir, "l")
	if err := unix.Mount("tmpfs", links, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return "", fmt.Errorf("mount layers' mount points: %w", err)
	}
	defer func() { err = errors.Join(err, detach(links)) }()
	lower := make([]string, len(kept)) // topmost first, as overlays want it
	for n, at := range kept {
		name := strconv.Itoa(n)
		if err := bind(root.Layers[at].Dir, maps[at], filepath.Join(links, name), users); err != nil {
			return "", fmt.Errorf("layer %s: %w", root.Layers[at].Dir, err)
		}
		lower[len(lower)-1-n] = "l/" + name
	}
	options := "userxattr,volatile," + labelOption(root.MountLabel) + "lowerdir=" + strings.Join(lower, ":") + ",upperdir=disk/upper,workdir=disk/work"
	flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID)
	if root.SetUID {
		flags = unix.MS_NODEV
	}
	return target, overlay(dir, flags, options)
}

// labelOption gives everything in the overlay an SELinux label, whatever the layers' own are.
func labelOption(label string) string {
	if label == "" {
		return ""
	}
	return "context=" + strconv.Quote(label) + ","
}

// check refuses what cannot be mounted.
func check(root driver.RootFS) error {
	if len(root.Layers) == 0 {
		return errors.New("a root file system needs at least one layer")
	}
	if len(root.Layers) > maxLayers {
		return fmt.Errorf("a root file system of %d layers: the kernel takes %d", len(root.Layers), maxLayers)
	}
	for _, layer := range root.Layers {
		if !filepath.IsAbs(layer.Dir) {
			return fmt.Errorf("layer %q is not an absolute path", layer.Dir)
		}
	}
	return nil
}

// distinct gives the places of the layers without those that come again further up, since an overlay takes none twice:
// whatever the lower one shows, the upper one does.
func distinct(layers []driver.Layer) []int {
	var kept []int
	for n, layer := range layers {
		if !slices.Contains(layers[n+1:], layer) {
			kept = append(kept, n)
		}
	}
	return kept
}

// dressUpper gives the writable directory, which lends its attributes to /, those of the topmost layer's root.
func dressUpper(upper string, layer driver.Layer, m idMap) error {
	var stat unix.Stat_t
	if err := unix.Lstat(layer.Dir, &stat); err != nil {
		return fmt.Errorf("layer %s: %w", layer.Dir, err)
	}
	if err := os.Lchown(upper, int(m.host(stat.Uid, m.uid)), int(m.host(stat.Gid, m.gid))); err != nil {
		return fmt.Errorf("own root file system: %w", err)
	}
	if err := unix.Chmod(upper, stat.Mode&0o7777); err != nil {
		return fmt.Errorf("set mode of root file system: %w", err)
	}
	return nil
}

// bind mounts a layer at a short name, through a map of ids where its own differ from the container's.
func bind(dir string, m idMap, at string, users *idMaps) error {
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
	if m.needed() {
		userns, err := users.get(m)
		if err != nil {
			return err
		}
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns.Fd())
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if attr.Userns_fd != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) {
			return unsupported(err)
		}
		return fmt.Errorf("map ids: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

func unsupported(err error) error {
	var name unix.Utsname
	release := "unknown"
	if unix.Uname(&name) == nil {
		release = unix.ByteSliceToString(name.Release[:])
	}
	return fmt.Errorf("%w: this kernel (%s) refuses to map ids on the layer's file system; use Linux 5.19 or newer and ext4, xfs or btrfs, "+
		"or run without a user namespace: %w", ErrUnsupported, release, err)
}

// detach unmounts the layers, all at once since each unmounting waits for the kernel, and removes their place.
func detach(links string) error {
	if err := unix.Unmount(links, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount layers: %w", err)
	}
	return os.Remove(links)
}
