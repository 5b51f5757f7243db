package buildpack

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

const (
	maxEntries  = 200_000
	maxUnpacked = 16 << 30
	maxLink     = 4096
)

// unzip unpacks an archive into a new directory. Every name is resolved within that directory, whatever links the
// archive brought along.
func unzip(r io.ReaderAt, size int64, dest string) error {
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	if len(archive.File) > maxEntries {
		return fmt.Errorf("the archive has more than %d entries", maxEntries)
	}
	if err := os.Mkdir(dest, 0o755); err != nil { //nolint:gosec // Buildpacks are no secret.
		return fmt.Errorf("making the buildpack's directory: %w", err)
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		return fmt.Errorf("opening the buildpack's directory: %w", err)
	}
	defer root.Close() //nolint:errcheck // A directory handle.
	rest := int64(maxUnpacked)
	for _, entry := range archive.File {
		written, err := extract(root, entry, rest)
		if err != nil {
			return fmt.Errorf("unpacking %q: %w", entry.Name, err)
		}
		rest -= written
	}
	return nil
}

func extract(root *os.Root, entry *zip.File, rest int64) (int64, error) {
	name := path.Clean(strings.TrimSuffix(entry.Name, "/"))
	if name == "." {
		return 0, nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return 0, fmt.Errorf("making its directory: %w", err)
	}
	switch mode := entry.Mode(); {
	case mode.IsDir():
		if err := root.MkdirAll(name, 0o755); err != nil {
			return 0, fmt.Errorf("making a directory: %w", err)
		}
		return 0, nil
	case mode&fs.ModeSymlink != 0:
		return 0, extractLink(root, entry, name)
	case mode.IsRegular():
		return extractFile(root, entry, name, rest)
	default:
		return 0, errors.New("neither a file, a directory nor a symbolic link")
	}
}

func extractLink(root *os.Root, entry *zip.File, name string) error {
	r, err := entry.Open()
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	defer r.Close() //nolint:errcheck // Only read.
	target, err := io.ReadAll(io.LimitReader(r, maxLink))
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if err := root.Symlink(string(target), name); err != nil {
		return fmt.Errorf("linking: %w", err)
	}
	return nil
}

func extractFile(root *os.Root, entry *zip.File, name string, rest int64) (int64, error) {
	r, err := entry.Open()
	if err != nil {
		return 0, fmt.Errorf("opening: %w", err)
	}
	defer r.Close() //nolint:errcheck // Only read.
	// Neither set-id bits nor unreadable files: the buildpack belongs to the user who unpacks it.
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, entry.Mode().Perm()|0o600)
	if err != nil {
		return 0, fmt.Errorf("creating: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(r, rest+1))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return n, fmt.Errorf("writing: %w", err)
	}
	if n > rest {
		return n, fmt.Errorf("the archive unpacks to more than %d bytes", int64(maxUnpacked))
	}
	return n, nil
}
