package quota

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Measure returns what the tree of a directory takes up. It leaves off once that is more than limit, and counts what is
// on the directory's own mount only.
func Measure(ctx context.Context, dir *os.File, limit Amount) (Amount, error) {
	return visit(ctx, dir, limit, nil)
}

// visit is Measure, and calls see for each file and directory below the first.
func visit(ctx context.Context, dir *os.File, limit Amount, see func(parent int, name string, kind uint32)) (Amount, error) {
	w := walk{root: int(dir.Fd()), limit: limit, see: see, seen: map[uint64]struct{}{}, buffer: make([]byte, 32<<10)}
	var stat unix.Stat_t
	if err := unix.Fstat(w.root, &stat); err != nil {
		return Amount{}, fmt.Errorf("measure %s: %w", dir.Name(), err)
	}
	w.device = stat.Dev
	handle, mount, err := unix.NameToHandleAt(w.root, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return Amount{}, fmt.Errorf("measure %s: its file system does not name files by handles: %w", dir.Name(), err)
	}
	w.mount = mount
	w.count(&stat)
	w.push(handle)
	for len(w.pending) > 0 && !w.sum.Exceeds(limit) {
		if err := w.enter(ctx, w.pop()); err != nil {
			return w.sum, fmt.Errorf("measure %s: %w", dir.Name(), err)
		}
	}
	return w.sum, nil
}

// walk is a walk through a tree. Directories that are still to be read are kept as file handles, one behind the other: no
// depth costs a descriptor, and no path is looked up twice.
type walk struct {
	root    int
	mount   int
	device  uint64
	limit   Amount
	see     func(parent int, name string, kind uint32)
	sum     Amount
	seen    map[uint64]struct{} // inodes with several names
	pending []byte
	buffer  []byte
	entries int
}

// push keeps a handle; its type and length stand behind it.
func (w *walk) push(h unix.FileHandle) {
	w.pending = append(w.pending, h.Bytes()...)
	w.pending = binary.LittleEndian.AppendUint32(w.pending, uint32(h.Type())) //nolint:gosec // a bit pattern
	w.pending = append(w.pending, byte(h.Size()))                             //nolint:gosec // at most 128
}

func (w *walk) pop() unix.FileHandle {
	n := len(w.pending)
	size := int(w.pending[n-1])
	kind := binary.LittleEndian.Uint32(w.pending[n-5:])
	handle := unix.NewFileHandle(int32(kind), w.pending[n-5-size:n-5]) //nolint:gosec // a bit pattern
	w.pending = w.pending[:n-5-size]
	return handle
}

// enter counts what is in a directory; one that has gone meanwhile holds nothing, nor does what was a directory when it
// was looked at and a link when it was named.
func (w *walk) enter(ctx context.Context, handle unix.FileHandle) error {
	fd, err := unix.OpenByHandleAt(w.root, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOATIME)
	if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Getdents(fd, w.buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.list(ctx, fd, w.buffer[:n]); err != nil || w.sum.Exceeds(w.limit) {
			return err
		}
	}
}

// list counts the entries of one answer of getdents: struct linux_dirent64, each with its length.
func (w *walk) list(ctx context.Context, fd int, raw []byte) error {
	const offLength, offName = 16, 19
	for len(raw) > offName {
		length := int(binary.NativeEndian.Uint16(raw[offLength:]))
		if length <= offName || length > len(raw) {
			return errors.New("the kernel's list of a directory makes no sense")
		}
		name, _, _ := bytes.Cut(raw[offName:length], []byte{0})
		raw = raw[length:]
		if w.entries++; w.entries%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if text := string(name); text != "." && text != ".." {
			w.entry(fd, text)
		}
	}
	return nil
}

// entry counts a file, and keeps a directory for later. What cannot be looked at has gone.
func (w *walk) entry(fd int, name string) {
	var stat unix.Stat_t
	if unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW) != nil || stat.Dev != w.device {
		return
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		handle, mount, err := unix.NameToHandleAt(fd, name, 0)
		if err != nil || mount != w.mount {
			return
		}
		w.push(handle)
	}
	w.count(&stat)
	if w.see != nil {
		w.see(fd, name, stat.Mode&unix.S_IFMT)
	}
}

// statBlock is the unit of st_blocks, whatever the file system's own blocks are.
const statBlock = 512

func (w *walk) count(stat *unix.Stat_t) {
	if stat.Nlink > 1 && stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, again := w.seen[stat.Ino]; again {
			return
		}
		w.seen[stat.Ino] = struct{}{}
	}
	w.sum = w.sum.plus(Amount{Bytes: stat.Blocks * statBlock, Inodes: 1})
}
