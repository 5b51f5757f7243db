package controller

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// never are names that are no part of an app.
var never = []string{".git", ".hg", ".svn", "_darcs", ".DS_Store", ".cfignore", ".gitignore"}

// zipDir writes a directory as the zip file that Cloud Controller stores. Symbolic links stay links; other special
// files are refused.
func zipDir(w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open app directory: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	archive := zip.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if slices.Contains(never, entry.Name()) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return addFile(archive, root, path, entry)
	})
	if err := errors.Join(err, archive.Close()); err != nil {
		return fmt.Errorf("pack app %s: %w", dir, err)
	}
	return nil
}

func addFile(archive *zip.Writer, root *os.Root, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	header, err := zip.FileInfoHeader(info)
	if err != nil {
		return err
	}
	header.Name = filepath.ToSlash(path)
	mode := info.Mode()
	switch {
	case mode.IsDir():
		header.Name += "/"
	case mode&fs.ModeSymlink != 0, mode.IsRegular():
		header.Method = zip.Deflate
	default:
		return fmt.Errorf("%s is neither a file, a directory nor a link", path)
	}
	target, err := archive.CreateHeader(header)
	if err != nil || mode.IsDir() {
		return err
	}
	if mode&fs.ModeSymlink != 0 {
		link, err := root.Readlink(path)
		if err != nil {
			return err
		}
		_, err = io.WriteString(target, link)
		return err
	}
	file, err := root.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, file)
	return errors.Join(err, file.Close())
}
