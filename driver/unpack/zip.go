package unpack

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

const (
	// maxLink bounds the text of a symbolic link in a zip.
	maxLink = 4096
	// creatorUnix and creatorMac are the systems whose zips carry modes.
	creatorUnix = 3
	creatorMac  = 19
	// maxTable and maxTableEntries bound the table of contents, all of which is in memory.
	maxTable        = 24 << 20
	maxTableEntries = 128 << 10
	// flagEncrypted marks entries that need a password.
	flagEncrypted = 1
)

// zip extracts a zip archive, whose table of contents is at its end: it is first spooled to a file without a name.
func (x *extractor) zip(source *bufio.Reader) error {
	spool, err := x.spool()
	if err != nil {
		return fmt.Errorf("make spool file: %w", err)
	}
	defer func() { _ = spool.Close() }()
	size, err := io.Copy(spool, io.LimitReader(source, x.job.MaxBytes+1))
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if size > x.job.MaxBytes {
		return fmt.Errorf("%w: it has more than %d bytes", ErrTooLarge, x.job.MaxBytes)
	}
	table := &tableReader{r: spool}
	archive, err := zip.NewReader(table, size)
	table.done = true
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	archive.RegisterDecompressor(zip.Deflate, flate.NewReader)
	if int64(len(archive.File)) > x.job.MaxEntries {
		return fmt.Errorf("%w: it has more than %d entries", ErrTooLarge, x.job.MaxEntries)
	}
	for _, file := range archive.File {
		if err := x.zipEntry(file); err != nil {
			return err
		}
	}
	return nil
}

// tableReader lets a zip's table be read, up to a size that memory is there for. What the archive says of its own size
// is not asked.
type tableReader struct {
	r       io.ReaderAt
	read    int
	entries int
	done    bool
}

func (t *tableReader) ReadAt(p []byte, at int64) (int, error) {
	n, err := t.r.ReadAt(p, at)
	if t.done {
		return n, err
	}
	t.read += n
	t.entries += bytes.Count(p[:n], []byte("PK\x01\x02"))
	if t.read > maxTable || t.entries > maxTableEntries {
		return 0, fmt.Errorf("%w: a zip may name %d files in a table of %d MiB; use a tgz", ErrTooLarge, maxTableEntries, maxTable>>20)
	}
	return n, err
}

// spool opens a file that has no name, on the destination's disk.
func (x *extractor) spool() (*os.File, error) {
	const name = ".spool"
	root := int(x.tree.root.Fd())
	fd, err := unix.Openat(root, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		fd, err = unix.Openat(root, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == nil {
			err = unix.Unlinkat(root, name, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (x *extractor) zipEntry(file *zip.File) (err error) {
	if file.Flags&flagEncrypted != 0 {
		return fmt.Errorf("%w: %.200q is encrypted", ErrCorrupt, file.Name)
	}
	if file.UncompressedSize64 > math.MaxInt64 {
		return fmt.Errorf("%w: %.200q", ErrTooLarge, file.Name)
	}
	mode := zipMode(file)
	p := put{
		name: file.Name, size: int64(file.UncompressedSize64),
		meta: meta{mode: unixMode(mode), mtime: file.Modified},
	}
	switch mode.Type() {
	case fs.ModeDir:
		p.kind = putDir
		return x.write(p)
	case 0, fs.ModeSymlink:
	default:
		p.kind = putNothing
		return x.write(p)
	}
	body, err := file.Open()
	if err != nil {
		return fmt.Errorf("%w: %.200q: %w", ErrCorrupt, file.Name, err)
	}
	defer func() { _ = body.Close() }()
	p.body = corrupting{body}
	if mode.Type() == fs.ModeSymlink {
		text, err := io.ReadAll(io.LimitReader(p.body, maxLink))
		if err != nil {
			return fmt.Errorf("%.200q: %w", file.Name, err)
		}
		p.kind, p.target = putSymlink, string(text)
	}
	return x.write(p)
}

// corrupting says of a decoder's errors that the archive is damaged.
type corrupting struct{ r io.Reader }

func (c corrupting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	return n, damaged(err)
}

// zipMode is an entry's mode, with usual permissions where the archive has none.
func zipMode(file *zip.File) fs.FileMode {
	creator := file.CreatorVersion >> 8
	if (creator == creatorUnix || creator == creatorMac) && file.ExternalAttrs>>16 != 0 {
		mode := file.Mode()
		if mode.Perm() != 0 || mode.Type() != 0 {
			return mode
		}
	}
	if file.Mode().IsDir() {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

func unixMode(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for _, special := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if mode&special.mode != 0 {
			bits |= special.bit
		}
	}
	return bits
}
