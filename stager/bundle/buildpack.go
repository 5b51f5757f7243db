package bundle

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/klauspost/compress/flate"
)

// version is part of a made buildpack's name, so that a change of how they are packed is not hidden by a cache.
const version = "1"

//go:embed buildpacks
var buildpacks embed.FS //nolint:gochecknoglobals // Embedding needs a variable; nothing writes to it.

// StaticBuildpack returns the path of a zip of the buildpack for static sites (static_buildpack), made in cacheDir unless
// it is there. Its file server is a Perl script, because perl-base is part of every Debian and Ubuntu root file system:
// nothing has to be downloaded, and a droplet grows by five kilobytes.
func StaticBuildpack(ctx context.Context, cacheDir string) (string, error) {
	return cached(ctx, cacheDir, "static_buildpack", nil)
}

// NodeBuildpack returns the path of a zip of the buildpack for Node.js (nodejs_buildpack), made in cacheDir unless it is
// there. Making it downloads node and npm from the npm registry, by the npm on PATH, at versions that are pinned by
// their checksums; ErrNoNPM says that there is none.
func NodeBuildpack(ctx context.Context, cacheDir string) (string, error) {
	modules, err := nodeModules(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	return cached(ctx, cacheDir, "nodejs_buildpack", modules)
}

// cached makes a buildpack once for each content.
func cached(ctx context.Context, cacheDir, name string, modules []module) (string, error) {
	source := sub(buildpacks, path.Join("buildpacks", name))
	key, err := contentKey(source, modules)
	if err != nil {
		return "", err
	}
	file := filepath.Join(cacheDir, name+"-"+key+".zip")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(cacheDir, 0o700); err != nil {
		return "", fmt.Errorf("making the cache for buildpacks: %w", err)
	}
	var extra []extraFiles
	for _, m := range modules {
		tgz, err := m.download(ctx, cacheDir)
		if err != nil {
			return "", err
		}
		extra = append(extra, extraFiles{tgz: tgz, strip: m.strip, prefix: m.prefix})
	}
	if err := pack(file, source, extra); err != nil {
		return "", fmt.Errorf("packing %s: %w", name, err)
	}
	return file, nil
}

// contentKey names what goes into a buildpack.
func contentKey(source fs.FS, modules []module) (string, error) {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "version %s\n", version) // A hash takes everything.
	for _, m := range modules {
		_, _ = fmt.Fprintf(sum, "%s %s %s\n", m.name, m.version, m.sha512)
	}
	err := fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(source, name)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading the buildpack: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// PackBuildpack writes a zip of the buildpack in a directory to a file, as it is uploaded to a Cloud Controller. Scripts
// in bin are made executable.
func PackBuildpack(dir, file string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the buildpack: %w", err)
	}
	defer root.Close() //nolint:errcheck // Only read.
	if _, err := root.Stat("bin"); err != nil {
		return fmt.Errorf("a buildpack needs a bin directory: %w", err)
	}
	return pack(file, root.FS(), nil)
}

// pack writes a file that appears only when it is whole.
func pack(file string, source fs.FS, extra []extraFiles) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".buildpack-*")
	if err != nil {
		return fmt.Errorf("creating the archive: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // Gone already when all went well.
	zw := zip.NewWriter(tmp)
	zw.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.DefaultCompression) //nolint:wrapcheck // The zip writer's own business.
	})
	err = addTree(zw, source)
	for _, e := range extra {
		if err == nil {
			err = e.add(zw)
		}
	}
	if err = errors.Join(err, zw.Close(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("putting the archive in place: %w", err)
	}
	return nil
}

func addTree(zw *zip.Writer, source fs.FS) error {
	return fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return fmt.Errorf("looking at %s: %w", name, err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", name)
		}
		f, err := source.Open(name)
		if err != nil {
			return fmt.Errorf("opening %s: %w", name, err)
		}
		defer f.Close() //nolint:errcheck // Only read.
		return addFile(zw, name, executable(name) || info.Mode()&0o100 != 0, f)
	})
}

// executable reports what embedding has forgotten: that scripts are programs.
func executable(name string) bool {
	return strings.HasPrefix(name, "bin/") || name == "lib/static-server"
}

func addFile(zw *zip.Writer, name string, program bool, content io.Reader) error {
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: epoch()}
	header.SetMode(0o644)
	if program {
		header.SetMode(0o755)
	}
	w, err := zw.CreateHeader(header)
	if err != nil {
		return fmt.Errorf("adding %s: %w", name, err)
	}
	if _, err := io.Copy(w, content); err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	return nil
}
