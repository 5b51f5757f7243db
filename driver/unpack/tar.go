package unpack

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Names that mean a deletion in an image layer.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh."
)

// xattrRecord begins the names of PAX records that carry extended attributes.
const xattrRecord = "SCHILY.xattr."

// tar extracts a tar archive, and reads what is behind its end, so that the digests cover all of it.
func (x *extractor) tar(format string, source *bufio.Reader) error {
	inflated, err := inflate(format, source)
	if err != nil {
		return err
	}
	sum := sha256.New()
	stream := readAhead(inflated, x.job.MaxBytes, sum)
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return tarError(err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.write(tarPut(header, archive, x.job.IDs.Size)); err != nil {
			return tarError(err)
		}
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, source); err != nil {
		return fmt.Errorf("read the rest: %w", err)
	}
	x.stats.DiffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return nil
}

// tarError says of the tar reader's own errors that the archive is damaged.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

func tarPut(header *tar.Header, body io.Reader, ids uint32) put {
	p := put{
		name: header.Name, target: header.Linkname, size: header.Size, body: body,
		meta: meta{
			mode: uint32(header.Mode) & 0o7777, uid: mapped(header.Uid, ids), gid: mapped(header.Gid, ids),
			mtime: header.ModTime, xattrs: xattrs(header.PAXRecords),
		},
	}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		p.kind = putFile
	case tar.TypeDir:
		p.kind = putDir
	case tar.TypeSymlink:
		p.kind = putSymlink
	case tar.TypeLink:
		p.kind = putHardlink
	case tar.TypeFifo:
		p.kind = putFIFO
	default:
		p.kind = putNothing
	}
	return p
}

// mapped is the id itself where the container has it.
func mapped(id int, size uint32) uint32 {
	if id < 0 || id >= int(size) {
		return nobody
	}
	return uint32(id)
}

// xattrs picks the extended attributes that are safe and possible to keep: file capabilities, which the kernel binds
// to the container's root, and the user's own, except those by which an overlay is told what to show.
func xattrs(records map[string]string) map[string]string {
	var kept map[string]string
	for record, value := range records {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	return kept
}

// whiteout hides a name, or all names, that lower layers have in a directory. It does not touch what this layer put
// there.
func (x *extractor) whiteout(parent, base string) error {
	x.stats.Entries++
	if base == whiteoutOpaque {
		return x.opaque(parent)
	}
	if strings.HasPrefix(base, whiteoutMeta) { // another union file system's notes
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("%w: a whiteout of %q", ErrEscapes, hidden)
	}
	dir, err := x.tree.dir(parent)
	if err != nil {
		return err
	}
	err = unix.Mknodat(dir, hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(dir, hidden, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return x.opaque(parent + "/" + hidden)
	}
	return nil
}

// opaque hides everything that lower layers have in a directory.
func (x *extractor) opaque(name string) error {
	dir, err := x.tree.dir(name)
	if err != nil {
		return err
	}
	if err := unix.Fsetxattr(dir, opaqueAttribute, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark %q opaque: %w", name, err)
	}
	return nil
}
