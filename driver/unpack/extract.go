package unpack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDirTimes is how many directories get their time back after they have been filled.
const maxDirTimes = 100_000

// opaqueAttribute hides what lower layers have in a directory, in overlays mounted with userxattr.
const opaqueAttribute = "user.overlay.opaque"

// extractor carries one job out.
type extractor struct {
	job      Job
	tree     *tree
	stats    Stats
	count    int64
	dirTimes []dirTime
	buf      []byte
}

type dirTime struct {
	name  string
	mtime time.Time
}

// extract runs a job below root, which it closes.
func extract(job Job, root *os.File, stdin io.Reader) (Stats, error) {
	x := &extractor{job: job, buf: make([]byte, 64<<10)}
	x.tree = &tree{root: root, resolve: unix.RESOLVE_IN_ROOT, made: x.parentMade}
	defer func() { x.tree.close() }()
	if err := x.enterPrefix(); err != nil {
		return Stats{}, fmt.Errorf("prefix %q: %w", job.Prefix, classify(err))
	}
	if !job.Whiteouts {
		x.tree.resolve = unix.RESOLVE_BENEATH
	}
	source := bufio.NewReaderSize(stdin, 256<<10)
	format := job.Format
	if format == Auto {
		var err error
		if format, err = sniff(source); err != nil {
			return Stats{}, err
		}
	}
	var err error
	if format == Zip {
		err = x.zip(source)
	} else {
		err = x.tar(format, source)
	}
	return x.stats, errors.Join(classify(err), x.restoreTimes())
}

// enterPrefix makes the job's prefix the tree's root.
func (x *extractor) enterPrefix() error {
	name, err := clean("/" + x.job.Prefix)
	if err != nil || name == "." {
		return err
	}
	_, err = x.tree.open(name)
	missing := errors.Is(err, unix.ENOENT)
	fd, err := x.tree.dir(name)
	if err != nil {
		return err
	}
	if owner := x.job.Owner; missing && owner != nil {
		if err := unix.Fchown(fd, int(owner.UID), int(owner.GID)); err != nil {
			return err
		}
	}
	inner, err := x.tree.open(name)
	if err != nil {
		return err
	}
	made := x.tree.made
	x.tree.close()
	x.tree = &tree{root: inner, resolve: unix.RESOLVE_IN_ROOT, made: made}
	x.job.Prefix = ""
	return nil
}

// parentMade dresses a directory that no entry asked for. Of a layer, and of the way to a prefix, it is seen instead
// of the directory that lower layers have there; so the ones that every system has are made as they are there.
func (x *extractor) parentMade(made parentDir) error {
	if err := x.next(); err != nil {
		return err
	}
	covers := x.job.Whiteouts || x.job.Prefix != ""
	if covers && (made.name == "tmp" || made.name == "var/tmp") {
		return unix.Fchmodat(made.parent, made.base, 0o777|unix.S_ISVTX, 0)
	}
	if owner := x.job.Owner; owner != nil && (x.job.Prefix == "" || strings.HasPrefix(made.name, "home/")) {
		err := unix.Fchownat(made.parent, made.base, int(owner.UID), int(owner.GID), unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return err
		}
	}
	if made.hidden && x.job.Whiteouts {
		return x.opaque(made.name)
	}
	return nil
}

// next counts an entry.
func (x *extractor) next() error {
	if x.count++; x.count > x.job.MaxEntries {
		return fmt.Errorf("%w: it has more than %d entries", ErrTooLarge, x.job.MaxEntries)
	}
	return nil
}

// grow counts bytes of files.
func (x *extractor) grow(size int64) error {
	if size < 0 || x.stats.Bytes > x.job.MaxBytes-size {
		return fmt.Errorf("%w: its files have more than %d bytes", ErrTooLarge, x.job.MaxBytes)
	}
	x.stats.Bytes += size
	return nil
}

// restoreTimes sets directories' times, which filling them has changed.
func (x *extractor) restoreTimes() error {
	for _, dir := range x.dirTimes {
		found, err := x.tree.open(dir.name)
		if err != nil { // replaced by a later entry
			continue
		}
		err = touch(int(found.Fd()), "", dir.mtime)
		if err = errors.Join(err, found.Close()); err != nil {
			return fmt.Errorf("time of %q: %w", dir.name, err)
		}
	}
	return nil
}

// put is one entry of an archive of any format.
type put struct {
	name string
	kind byte // one of the put constants
	meta meta
	// target is the text of a symbolic link, or the name of a hard link's file.
	target string
	size   int64
	body   io.Reader
}

const (
	putFile = iota
	putDir
	putSymlink
	putHardlink
	putFIFO
	putNothing
)

// write carries out one entry.
func (x *extractor) write(p put) error {
	name, err := clean(p.name)
	if err != nil {
		return err
	}
	if err := x.next(); err != nil {
		return err
	}
	if x.job.Owner != nil {
		p.meta.uid, p.meta.gid = x.job.Owner.UID, x.job.Owner.GID
	}
	if err := x.place(name, p); err != nil {
		return fmt.Errorf("%.200q: %w", p.name, classify(err))
	}
	return nil
}

func (x *extractor) place(name string, p put) error {
	if name == "." {
		return x.placeRoot(p)
	}
	if p.kind == putNothing {
		x.stats.Skipped++
		return nil
	}
	parent, base := split(name)
	if x.job.Whiteouts && strings.HasPrefix(base, whiteoutPrefix) {
		return x.whiteout(parent, base)
	}
	x.stats.Entries++
	if p.kind == putHardlink {
		target, err := clean(p.target)
		if err != nil {
			return err
		}
		return x.tree.link(name, target)
	}
	dir, err := x.tree.dir(parent)
	if err != nil {
		return err
	}
	switch p.kind {
	case putDir:
		return x.placeDir(dir, name, p)
	case putSymlink:
		return x.tree.symlink(dir, base, p.target, p.meta)
	case putFIFO:
		return x.tree.fifo(dir, base, p.meta)
	}
	if err := x.grow(p.size); err != nil {
		return err
	}
	return x.tree.file(dir, base, p.meta, func(file *os.File) error {
		size, err := copyHoles(file, io.LimitReader(p.body, p.size+1), x.buf)
		if err == nil && size != p.size {
			err = fmt.Errorf("%w: it holds %d bytes and says %d", ErrCorrupt, size, p.size)
		}
		return err
	})
}

// placeRoot takes an entry for the destination itself. A layer may set its attributes; an archive may not, for the
// destination can be a directory that others use.
func (x *extractor) placeRoot(p put) error {
	if p.kind != putDir {
		return fmt.Errorf("%w: it replaces the destination", ErrEscapes)
	}
	if !x.job.Whiteouts {
		return nil
	}
	x.stats.Entries++
	x.remember(".", p.meta.mtime)
	return dress(int(x.tree.root.Fd()), p.meta)
}

func (x *extractor) placeDir(dir int, name string, p put) error {
	hidden, err := x.tree.mkdir(dir, path.Base(name), p.meta)
	if err != nil {
		return err
	}
	x.remember(name, p.meta.mtime)
	if hidden && x.job.Whiteouts {
		return x.opaque(name)
	}
	return nil
}

func (x *extractor) remember(name string, mtime time.Time) {
	if len(x.dirTimes) < maxDirTimes {
		x.dirTimes = append(x.dirTimes, dirTime{name: name, mtime: mtime})
	}
}
