// Package bundle makes the archives that a Cloud Controller hands out: the lifecycle bundles that its recipes unpack
// into containers, and buildpacks. It also holds two small buildpacks and two sample apps of our own, which use the real
// buildpack API and need nothing from outside but the npm registry's build of node (NodeBuildpack).
//
// A lifecycle bundle is one binary, cmd/drover-lifecycle, built without cgo, and a symbolic link to it for each of its
// names. Unpacked anywhere by any tar, it can be run by any user. The Docker lifecycle's has a marker file beside it,
// because its programs have the same names as the buildpack lifecycle's.
package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"

	"drover/stager"
)

// Lifecycle is a kind of bundle.
type Lifecycle struct {
	// File is the archive's customary name.
	File string
	// Names are the programs in it.
	Names []string
	// marker is the content of stager.MarkerFile, if any.
	marker string
}

// BuildpackLifecycle returns the bundle of builder, launcher and their company for droplets.
func BuildpackLifecycle() Lifecycle {
	return Lifecycle{
		File:  "buildpack_app_lifecycle.tgz",
		Names: []string{"builder", "launcher", "healthcheck", "shell", "diego-sshd"},
	}
}

// DockerLifecycle returns the bundle for images.
func DockerLifecycle() Lifecycle {
	return Lifecycle{
		File:   "docker_app_lifecycle.tgz",
		Names:  []string{"builder", "launcher", "healthcheck", "diego-sshd"},
		marker: stager.LifecycleDocker + "\n",
	}
}

// binaryName is what the binary is called in a bundle; the names link to it.
const binaryName = "drover-lifecycle"

// WriteTGZ writes a lifecycle bundle with the binary at a path. Equal binaries make equal bundles.
func WriteTGZ(w io.Writer, binary string, kind Lifecycle) error {
	f, err := os.Open(binary) //nolint:gosec // The operator's own binary.
	if err != nil {
		return fmt.Errorf("opening the lifecycle binary: %w", err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at the lifecycle binary: %w", err)
	}
	zw := gzip.NewWriter(w)
	tw := tar.NewWriter(zw)
	err = writeEntries(tw, f, info.Size(), kind)
	return errors.Join(err, tw.Close(), zw.Close())
}

func writeEntries(tw *tar.Writer, binary io.Reader, size int64, kind Lifecycle) error {
	if err := writeEntry(tw, binaryName, tar.TypeReg, size); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, binary, size); err != nil {
		return fmt.Errorf("packing the lifecycle binary: %w", err)
	}
	for _, name := range kind.Names {
		if err := writeEntry(tw, name, tar.TypeSymlink, 0); err != nil {
			return err
		}
	}
	if kind.marker == "" {
		return nil
	}
	if err := writeEntry(tw, stager.MarkerFile, tar.TypeReg, int64(len(kind.marker))); err != nil {
		return err
	}
	if _, err := io.WriteString(tw, kind.marker); err != nil {
		return fmt.Errorf("packing the marker: %w", err)
	}
	return nil
}

func writeEntry(tw *tar.Writer, name string, kind byte, size int64) error {
	header := &tar.Header{Name: name, Typeflag: kind, Size: size, Mode: 0o755, ModTime: epoch()}
	if kind == tar.TypeSymlink {
		header.Linkname = binaryName
	}
	if err := tw.WriteHeader(header); err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	return nil
}

// epoch is the time of everything in an archive that should be the same whenever it is made; zip knows no earlier one.
func epoch() time.Time {
	return time.Date(1980, time.January, 1, 0, 0, 0, 0, time.UTC)
}
