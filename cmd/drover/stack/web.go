package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/pgzip"
)

// WebPort is where the web server of Maker.Web listens.
const WebPort = 8080

// WebText is what it answers to a GET of /.
const WebText = "hello from a Docker image\n"

// webConfig runs nginx in the foreground with its logs on the container's own output.
const webConfig = `daemon off;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 64; }
http {
  access_log /dev/stdout;
  server {
    listen 8080;
    location = / { default_type text/plain; return 200 "hello from a Docker image\n"; }
    location = /healthz { access_log off; default_type text/plain; return 200 "ok\n"; }
  }
}
`

// Web returns an image of nginx on Debian, made now if it is not there.
func (m Maker) Web(ctx context.Context) (v1.Image, error) {
	packages := []string{"nginx-light"}
	dir, err := m.once(ctx, "web", append([]string{webConfig}, packages...), func(ctx context.Context, dir string) error {
		m.Progress("making a Docker image: nginx on Debian (once, about a minute)")
		rootfs := filepath.Join(dir, "rootfs")
		if err := m.debootstrap(ctx, "image", rootfs, packages); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(rootfs, "etc/nginx/nginx.conf"), []byte(webConfig), 0o644); err != nil {
			return fmt.Errorf("configure nginx: %w", err)
		}
		if err := pack(ctx, rootfs, filepath.Join(dir, "layer.tgz")); err != nil {
			return err
		}
		if err := writeImage(filepath.Join(dir, "image"), filepath.Join(dir, "layer.tgz")); err != nil {
			return err
		}
		return errors.Join(os.RemoveAll(rootfs), os.Remove(filepath.Join(dir, "layer.tgz")))
	})
	if err != nil {
		return nil, err
	}
	return readImage(filepath.Join(dir, "image"))
}

// writeImage makes an image of one layer and keeps it as an OCI layout.
func writeImage(dir, layerFile string) error {
	layer, err := tarball.LayerFromFile(layerFile)
	if err != nil {
		return fmt.Errorf("read image layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Entrypoint:   []string{"/usr/sbin/nginx"},
		Cmd:          []string{"-c", "/etc/nginx/nginx.conf"},
		ExposedPorts: map[string]struct{}{fmt.Sprintf("%d/tcp", WebPort): {}},
		StopSignal:   "SIGQUIT",
		WorkingDir:   "/",
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	if err := path.AppendImage(image); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

func readImage(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("read image: %s holds %d images", dir, len(manifest.Manifests))
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// pack writes a directory as a compressed tar archive, with its owners.
func pack(ctx context.Context, dir, file string) error {
	var problems strings.Builder
	cmd := exec.CommandContext(ctx, "tar", "--numeric-owner", "--sort=name", "-C", dir, "-cf", "-", ".")
	cmd.Env = environment()
	cmd.Stderr = &problems
	content, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("pack image layer: %w", err)
	}
	target, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("pack image layer: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("pack image layer: %w", err), target.Close())
	}
	compressed := pgzip.NewWriter(target)
	_, err = io.Copy(compressed, content)
	if err := errors.Join(err, compressed.Close(), target.Close(), cmd.Wait()); err != nil {
		return fmt.Errorf("pack image layer: %w: %s", err, strings.TrimSpace(problems.String()))
	}
	return nil
}
