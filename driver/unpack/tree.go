package unpack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree writes below one directory. Every directory on an entry's way is resolved by the kernel, which keeps the walk
// inside; last names are never followed.
type tree struct {
	root *os.File
	// resolve is how links on the way are treated: RESOLVE_BENEATH refuses the ones that lead out, RESOLVE_IN_ROOT
	// takes root for /.
	resolve uint64
	// made is called for each directory that no entry asked for.
	made func(parentDir) error

	// at is the directory that the last entry was in: archives list directory by directory. It cannot be stale, for
	// whatever an entry replaces is in the directory that was resolved for it.
	at     *os.File
	atName string
}

// meta is what all kinds of entries have.
type meta struct {
	mode     uint32 // permission bits with setuid, setgid and sticky
	uid, gid uint32
	mtime    time.Time
	xattrs   map[string]string
}

func (t *tree) close() {
	t.forget()
	_ = t.root.Close()
}

// forget drops the remembered directory.
func (t *tree) forget() {
	if t.at != nil {
		_ = t.at.Close()
	}
	t.at, t.atName = nil, ""
}

// open resolves a directory below root.
func (t *tree) open(name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: t.resolve | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(t.root.Fd()), name, &how)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
	}
}

// dir returns the descriptor of a directory, making it and its parents when they are missing. It is valid until the
// next call.
func (t *tree) dir(name string) (int, error) {
	if t.at != nil && t.atName == name {
		return int(t.at.Fd()), nil
	}
	found, err := t.open(name)
	if (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) && name != "." {
		err = t.mkdirParent(name)
		if err == nil {
			found, err = t.open(name)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("directory %q: %w", name, classify(err))
	}
	t.forget()
	t.at, t.atName = found, name
	return int(found.Fd()), nil
}

func (t *tree) mkdirParent(name string) error {
	dir, base := split(name)
	parent, err := t.dir(dir)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(parent, base, 0o755)
	hidden := errors.Is(err, unix.EEXIST) && isWhiteout(parent, base)
	if hidden {
		err = t.replace(parent, base, func() error { return unix.Mkdirat(parent, base, 0o755) })
	}
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %q is a file, or a link that leads nowhere", ErrCorrupt, name)
	}
	if err != nil {
		return err
	}
	return t.made(parentDir{name: name, parent: parent, base: base, hidden: hidden})
}

// parentDir is a directory that was made because an entry needs it. Hidden says that there was a whiteout before.
type parentDir struct {
	name   string
	parent int
	base   string
	hidden bool
}

// isWhiteout says whether a name is an overlay's mark of a deletion.
func isWhiteout(dir int, base string) bool {
	var stat unix.Stat_t
	err := unix.Fstatat(dir, base, &stat, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && stat.Mode&unix.S_IFMT == unix.S_IFCHR && stat.Rdev == 0
}

// replace calls create, and once more after removing what stands in its way.
func (t *tree) replace(dir int, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := removeAll(dir, base); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return create()
}

// removeAll removes a file or a whole directory, following no links.
func removeAll(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	inner := os.NewFile(uintptr(fd), base)
	defer func() { _ = inner.Close() }()
	names, err := inner.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(fd, name); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

// mkdir makes a directory or gives an existing one new attributes. What else has the name is replaced; wasWhiteout says
// that it was an overlay's whiteout.
func (t *tree) mkdir(dir int, base string, m meta) (wasWhiteout bool, err error) {
	err = unix.Mkdirat(dir, base, m.mode)
	if errors.Is(err, unix.EEXIST) {
		var stat unix.Stat_t
		if err := unix.Fstatat(dir, base, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, err
		}
		if err = nil; stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			wasWhiteout = isWhiteout(dir, base)
			err = t.replace(dir, base, func() error { return unix.Mkdirat(dir, base, m.mode) })
		}
	}
	if err != nil {
		return false, err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	return wasWhiteout, dress(fd, m)
}

// dress gives an open file its owner, mode and extended attributes, in the order in which they do not undo each other.
func dress(fd int, m meta) error {
	if err := unix.Fchown(fd, int(m.uid), int(m.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return err
	}
	for name, value := range m.xattrs {
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("set attribute %q: %w", name, err)
		}
	}
	return nil
}

// file writes a regular file of what body holds; copyBody says how many bytes that were.
func (t *tree) file(dir int, base string, m meta, copyBody func(*os.File) error) error {
	var fd int
	err := t.replace(dir, base, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), base)
	err = copyBody(file)
	if err == nil {
		err = dress(fd, m)
	}
	if err == nil {
		err = touch(fd, "", m.mtime)
	}
	return errors.Join(err, file.Close())
}

// symlink makes a symbolic link; its text is the archive's affair, for nothing here follows it.
func (t *tree) symlink(dir int, base, target string, m meta) error {
	err := t.replace(dir, base, func() error { return unix.Symlinkat(target, dir, base) })
	if err != nil {
		return err
	}
	return errors.Join(own(dir, base, m), touch(dir, base, m.mtime))
}

// fifo makes a named pipe.
func (t *tree) fifo(dir int, base string, m meta) error {
	err := t.replace(dir, base, func() error { return unix.Mknodat(dir, base, unix.S_IFIFO|m.mode&0o777, 0) })
	if err != nil {
		return err
	}
	return errors.Join(own(dir, base, m), touch(dir, base, m.mtime))
}

// link gives the file that target names, below root, a second name.
func (t *tree) link(name, target string) error {
	if target == name {
		return nil
	}
	fromDir, fromBase := split(target)
	from, err := t.open(fromDir)
	if err != nil {
		return fmt.Errorf("link target %q: %w", target, classify(err))
	}
	defer func() { _ = from.Close() }()
	toDir, base := split(name)
	dir, err := t.dir(toDir)
	if err != nil {
		return err
	}
	err = t.replace(dir, base, func() error { return unix.Linkat(int(from.Fd()), fromBase, dir, base, 0) })
	if err != nil {
		return fmt.Errorf("link target %q: %w", target, classify(err))
	}
	return nil
}

func own(dir int, base string, m meta) error {
	return unix.Fchownat(dir, base, int(m.uid), int(m.gid), unix.AT_SYMLINK_NOFOLLOW)
}

// touch sets the modification time; of dir itself when base is empty.
func touch(dir int, base string, mtime time.Time) error {
	if mtime.IsZero() || mtime.Unix() < 0 {
		mtime = time.Unix(0, 0)
	}
	stamp := unix.Timespec{Sec: mtime.Unix(), Nsec: int64(mtime.Nanosecond())}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags = unix.AT_EMPTY_PATH
	}
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{stamp, stamp}, flags)
}

// split is path.Split for clean names.
func split(name string) (dir, base string) {
	return path.Dir(name), path.Base(name)
}

// clean makes an entry's name relative and refuses those that lead out by their words alone.
func clean(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: it has an entry without a usable name", ErrCorrupt)
	}
	out := path.Clean(strings.TrimLeft(name, "/"))
	if out == ".." || strings.HasPrefix(out, "../") {
		return "", fmt.Errorf("%w: %.200q", ErrEscapes, name)
	}
	if out == "" {
		out = "."
	}
	if strings.Count(out, "/") >= maxDepth {
		return "", fmt.Errorf("%w: an entry is more than %d directories deep", ErrTooLarge, maxDepth)
	}
	return out, nil
}

// copyHoles copies as io.Copy does, but leaves holes where source has long runs of zeros.
func copyHoles(file *os.File, source io.Reader, buf []byte) (size int64, err error) {
	var hole int64
	for err == nil {
		var n int
		n, err = io.ReadFull(source, buf)
		size += int64(n)
		if n == len(buf) && zeros(buf) {
			hole += int64(n)
			continue
		}
		if err := writeAfter(file, hole, buf[:n]); err != nil {
			return size, err
		}
		if n > 0 {
			hole = 0
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 && !errors.Is(err, ErrCorrupt) { // ReadFull's word for the end
			err = io.EOF
		}
	}
	if !errors.Is(err, io.EOF) {
		return size, err
	}
	if hole > 0 {
		return size, file.Truncate(size)
	}
	return size, nil
}

// writeAfter writes behind a hole.
func writeAfter(file *os.File, hole int64, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	if hole > 0 {
		if _, err := file.Seek(hole, io.SeekCurrent); err != nil {
			return err
		}
	}
	_, err := file.Write(raw)
	return err
}

func zeros(buf []byte) bool {
	for len(buf) >= 8 {
		if buf[0]|buf[1]|buf[2]|buf[3]|buf[4]|buf[5]|buf[6]|buf[7] != 0 {
			return false
		}
		buf = buf[8:]
	}
	return true
}
