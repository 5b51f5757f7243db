package dev

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"drover/bridge/mtls"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/stack"
	"drover/stager/bundle"

	"golang.org/x/sync/errgroup"
)

// certificatesFor is how long the throw-away authority's certificates are good.
const certificatesFor = 30 * 24 * time.Hour

func (p *Platform) makeCertificates(context.Context) (func(context.Context) error, error) {
	authority, err := mtls.NewAuthority("drover dev", certificatesFor)
	if err != nil {
		return nil, err
	}
	dir := p.config.below("tls")
	for name, files := range map[string]*mtls.Files{
		"bridge": &p.tls.bridge, "controller": &p.tls.controller, "cell": &p.tls.cell, "command": &p.tls.command,
	} {
		if *files, err = authority.Issue(dir, name, "127.0.0.1", "localhost"); err != nil {
			return nil, err
		}
	}
	p.Info.TLS = p.tls.command
	return nil, p.trust()
}

// trust gathers the authorities that apps trust: the machine's own, and those that its environment names.
func (p *Platform) trust() error {
	const system = "/etc/ssl/certs/ca-certificates.crt"
	for name, path := range map[string]string{"system.crt": system, "environment.crt": os.Getenv("SSL_CERT_FILE")} {
		if path == "" || (name == "environment.crt" && path == system) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read trusted certificates: %w", err)
		}
		if err := os.WriteFile(p.config.below("cell", "trusted", name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeRootFS makes the stack and the image to try side by side, as each takes long the first time.
func (p *Platform) makeRootFS(ctx context.Context) (func(context.Context) error, error) {
	maker := stack.Maker{
		Cache: filepath.Join(p.config.Cache, "stacks"), Mirror: p.config.DebianMirror, Progress: p.config.Progress,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		p.rootfs, err = p.stackRootFS(ctx, maker)
		return err
	})
	group.Go(func() (err error) {
		p.webImage, err = maker.Web(ctx)
		return err
	})
	return nil, group.Wait()
}

// stackRootFS is the directory of the stack; empty when it is an image.
func (p *Platform) stackRootFS(ctx context.Context, maker stack.Maker) (string, error) {
	switch given := p.config.StackRootFS; {
	case p.config.StackImage != "":
		return "", nil
	case given == "":
		return maker.RootFS(ctx)
	default:
		info, err := os.Stat(given)
		if err != nil {
			return "", fmt.Errorf("stack: %w", err)
		}
		if info.IsDir() {
			return given, nil
		}
		return maker.Unpack(ctx, given)
	}
}

// packAssets fills the directory of the bridge's file server.
func (p *Platform) packAssets(ctx context.Context) (func(context.Context) error, error) {
	p.static = p.config.below("static")
	lifecycle := filepath.Join(p.config.Bin, "drover-lifecycle")
	for dir, kind := range map[string]bundle.Lifecycle{
		"buildpack_app_lifecycle": bundle.BuildpackLifecycle(),
		"docker_app_lifecycle":    bundle.DockerLifecycle(),
	} {
		err := create(filepath.Join(p.static, dir, kind.File), func(w io.Writer) error {
			return bundle.WriteTGZ(w, lifecycle, kind)
		})
		if err != nil {
			return nil, err
		}
	}
	cache := filepath.Join(p.config.Cache, "buildpacks")
	p.config.Progress("packing buildpacks (the first time, Node.js is fetched with npm)")
	for _, pack := range []struct {
		name string
		make func(context.Context, string) (string, error)
	}{{"nodejs_buildpack", bundle.NodeBuildpack}, {"static_buildpack", bundle.StaticBuildpack}} {
		made, err := pack.make(ctx, cache)
		if err != nil {
			return nil, err
		}
		file, err := p.publish(made)
		if err != nil {
			return nil, err
		}
		file.Name, file.Key = pack.name, pack.name+"-"+file.SHA256[:16]
		p.packs = append(p.packs, file)
	}
	return nil, nil
}

// publish puts a buildpack where the file server finds it. Its URL is completed when the bridge's address is known.
func (p *Platform) publish(made string) (recipe.BuildpackFile, error) {
	source, err := os.Open(made)
	if err != nil {
		return recipe.BuildpackFile{}, err
	}
	defer func() { _ = source.Close() }() // it was only read
	sum := sha256.New()
	path := "buildpacks/" + filepath.Base(made)
	err = create(filepath.Join(p.static, path), func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, sum), source)
		return err
	})
	return recipe.BuildpackFile{URL: path, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// create writes a file, with its directory.
func create(path string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

func (p *Platform) bringUpNetwork(ctx context.Context) (func(context.Context) error, error) {
	if err := p.network.up(ctx, p.config.below("cni"), p.config.below("cell")); err != nil {
		return nil, err
	}
	return p.network.down, nil
}
