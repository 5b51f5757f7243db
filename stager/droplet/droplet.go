// Package droplet packs directory trees into compressed archives: droplets, and the caches that buildpacks keep.
//
// An archive's names begin with "./", everything in it belongs to vcap (2000:2000), and what the trees said about
// modes, times, symbolic and hard links is kept. Compression runs on all cores. Unpacking is the platform's business,
// in the node's driver.
package droplet

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/klauspost/pgzip"
)

// VcapID is the numeric user and group that own every entry.
const VcapID = 2000

// level trades size for time: a droplet is packed while somebody waits. Against gzip's default, a droplet with node in it
// is 7 % larger and is packed in two thirds of the time.
const level = 3

// Tree is a directory and the name it gets in an archive; "." is the archive's root.
type Tree struct {
	Name string
	Dir  string
}

// Pack writes an archive of trees, in their order, to a file that did not exist or is replaced. A tree named "." comes
// first. A file that grows or shrinks meanwhile is an error, sockets are left out.
func Pack(ctx context.Context, file string, trees ...Tree) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // The uploader is another user.
		return fmt.Errorf("making the archive's directory: %w", err)
	}
	f, err := os.Create(file) //nolint:gosec // The builder's own output path.
	if err != nil {
		return fmt.Errorf("creating the archive: %w", err)
	}
	err = Write(ctx, f, trees...)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("closing the archive: %w", closeErr)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// Write writes an archive of trees.
func Write(ctx context.Context, w io.Writer, trees ...Tree) error {
	zw, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return fmt.Errorf("starting compression: %w", err)
	}
	tw := tar.NewWriter(zw)
	for _, tree := range trees {
		if err := writeTree(ctx, tw, tree); err != nil {
			return errors.Join(fmt.Errorf("packing %s: %w", tree.Name, err), zw.Close())
		}
	}
	if err := tw.Close(); err != nil {
		return errors.Join(fmt.Errorf("finishing the archive: %w", err), zw.Close())
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("finishing compression: %w", err)
	}
	return nil
}

// inode tells files with several names apart.
type inode struct{ dev, ino uint64 }

// packer is one tree on its way.
type packer struct {
	tw    *tar.Writer
	root  *os.Root
	name  string
	links map[inode]string
}

func writeTree(ctx context.Context, tw *tar.Writer, tree Tree) error {
	root, err := os.OpenRoot(tree.Dir)
	if err != nil {
		return fmt.Errorf("opening the tree: %w", err)
	}
	defer root.Close() //nolint:errcheck // Only read.
	p := &packer{tw: tw, root: root, name: tree.Name, links: map[inode]string{}}
	return fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return p.add(name)
	})
}

func (p *packer) add(name string) error {
	info, err := p.root.Lstat(name)
	if err != nil {
		return fmt.Errorf("looking at a file: %w", err)
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	var target string
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = p.root.Readlink(name); err != nil {
			return fmt.Errorf("reading a link: %w", err)
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return fmt.Errorf("describing %s: %w", name, err)
	}
	header.Name = "./" + path.Join(p.name, name)
	if header.Name == "./." {
		header.Name = "./"
	} else if info.IsDir() {
		header.Name += "/"
	}
	header.Uid, header.Gid, header.Uname, header.Gname = VcapID, VcapID, "vcap", "vcap"
	p.link(header, info)
	if err := p.tw.WriteHeader(header); err != nil {
		return fmt.Errorf("writing the entry of %s: %w", name, err)
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	return p.content(name, header.Size)
}

// link turns the second name of a file into a link to the first.
func (p *packer) link(header *tar.Header, info fs.FileInfo) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || header.Typeflag != tar.TypeReg || stat.Nlink < 2 {
		return
	}
	id := inode{dev: stat.Dev, ino: stat.Ino}
	if first, ok := p.links[id]; ok {
		header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		return
	}
	p.links[id] = header.Name
}

func (p *packer) content(name string, size int64) error {
	f, err := p.root.Open(name)
	if err != nil {
		return fmt.Errorf("opening a file: %w", err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	n, err := io.Copy(p.tw, io.LimitReader(f, size))
	if err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("packing %s: it shrank from %d to %d bytes meanwhile", name, size, n)
	}
	return nil
}
