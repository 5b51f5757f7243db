package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// maxManifest bounds manifests, indexes and configurations.
	maxManifest = 4 << 20
	// maxLayers is what an overlay can be made of.
	maxLayers = 500
	// maxIndexes is how many indexes may be between a reference and its image.
	maxIndexes = 3
)

// authenticator gives credentials to the registry they are for.
func authenticator(ref name.Reference, auth *Auth) authn.Authenticator {
	if auth == nil || *auth == (Auth{ServerAddress: auth.ServerAddress}) {
		return authn.Anonymous
	}
	if auth.ServerAddress != "" && RegistryOf(auth.ServerAddress) != RegistryOf(ref.Context().RegistryStr()) {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	})
}

// RegistryOf is the host of an address as docker's configuration writes it, such as https://index.docker.io/v1/.
func RegistryOf(address string) string {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return address
	}
	switch parsed.Host {
	case "docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return name.DefaultRegistry
	}
	return parsed.Host
}

// manifest is an image's manifest or an index: which, its fields tell.
type manifest struct {
	Config    *v1.Descriptor  `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
}

// parseManifest reads and checks a manifest.
func parseManifest(raw []byte) (*manifest, error) {
	var found manifest
	if err := json.Unmarshal(raw, &found); err != nil {
		return nil, fmt.Errorf("%w: the manifest is not JSON: %w", ErrInvalid, err)
	}
	image, index := found.Config != nil && len(found.Layers) > 0, len(found.Manifests) > 0
	switch {
	case image && index:
		return nil, fmt.Errorf("%w: the manifest claims to be an image and an index", ErrInvalid)
	case !image && !index:
		return nil, fmt.Errorf("%w: the manifest is of no kind that this node knows (version 2 schema 2 or OCI, with layers)", ErrInvalid)
	case len(found.Layers) > maxLayers:
		return nil, fmt.Errorf("%w: it has %d layers, at most %d are possible", ErrInvalid, len(found.Layers), maxLayers)
	}
	for _, layer := range found.Layers {
		switch {
		case len(layer.URLs) > 0:
			return nil, fmt.Errorf("%w: layer %s is to be fetched from elsewhere, which is not done", ErrInvalid, layer.Digest)
		case layer.Size < 0 || layer.Size > maxArchive:
			return nil, fmt.Errorf("%w: layer %s has %d bytes, at most %d are allowed", ErrInvalid, layer.Digest, layer.Size, int64(maxArchive))
		}
	}
	return &found, nil
}

// manifests returns the raw manifest of a digest.
type manifests func(ctx context.Context, digest v1.Hash) ([]byte, error)

// follow finds the manifest of the image for a platform, through indexes.
func (w platform) follow(ctx context.Context, digest v1.Hash, read manifests) (v1.Hash, *manifest, error) {
	for range maxIndexes {
		raw, err := read(ctx, digest)
		if err != nil {
			return v1.Hash{}, nil, err
		}
		found, err := parseManifest(raw)
		if err != nil {
			return v1.Hash{}, nil, err
		}
		if len(found.Manifests) == 0 {
			return digest, found, nil
		}
		if digest, err = w.choose(found.Manifests); err != nil {
			return v1.Hash{}, nil, err
		}
	}
	return v1.Hash{}, nil, fmt.Errorf("%w: more than %d indexes of indexes", ErrInvalid, maxIndexes)
}

// resolve finds out which image the reference means, and gets everything of it but the layers.
func (p *pull) resolve(ctx context.Context, auth *Auth) (*resolved, error) {
	if pinned, ok := p.ref.(name.Digest); ok {
		digest, err := v1.NewHash(pinned.DigestStr())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadReference, err)
		}
		return p.describe(ctx, digest)
	}
	known := p.recall(auth)
	if known != nil && p.store.quiet.has(p.ref.Context().RegistryStr()) {
		known.unconfirmed = fmt.Errorf("%w: it did not answer a moment ago", ErrUnreachable)
		return known, nil
	}
	found, err := p.askTag(ctx, known != nil)
	if err == nil || known == nil || ctx.Err() != nil {
		return found, err
	}
	if err = explain("registry "+p.ref.Context().RegistryStr(), err); !errors.Is(err, ErrUnreachable) {
		return nil, err
	}
	p.store.quiet.add(p.ref.Context().RegistryStr())
	known.unconfirmed = err
	return known, nil
}

// askTag asks the registry what the tag means now; once and not for long when there is another way.
func (p *pull) askTag(ctx context.Context, otherwise bool) (*resolved, error) {
	limit, retry := p.store.tune.answer, p.store.retry
	if otherwise {
		limit = p.store.tune.patience
		retry = func(_ context.Context, _ string, try func() error) error { return try() }
	}
	var digest v1.Hash
	var known bool
	err := retry(ctx, "tag of "+p.ref.String(), func() (err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
		defer cancel()
		if digest, known, err = p.client.ask(ctx, p.ref.Identifier()); err == nil && !known {
			var raw []byte
			if digest, raw, err = p.client.small(ctx, "manifests", p.ref.Identifier(), v1.Hash{}); err == nil {
				err = p.store.writeBlob(digest, raw)
			}
		}
		return late(ctx, err)
	})
	if err != nil {
		return nil, err
	}
	return p.describe(ctx, digest)
}

// describe gets the manifest and the configuration of a digest.
func (p *pull) describe(ctx context.Context, digest v1.Hash) (*resolved, error) {
	digest, found, err := p.platform.follow(ctx, digest, func(ctx context.Context, digest v1.Hash) ([]byte, error) {
		return p.small(ctx, "manifests", digest)
	})
	if err != nil {
		return nil, err
	}
	if found.Config.Size < 0 || found.Config.Size > maxManifest {
		return nil, fmt.Errorf("%w: its configuration has %d bytes, at most %d are allowed", ErrInvalid, found.Config.Size, maxManifest)
	}
	raw, err := p.small(ctx, "blobs", found.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return p.platform.resolved(digest, found.Layers, raw)
}

// small returns a manifest or a configuration, from here when it is.
func (p *pull) small(ctx context.Context, kind string, digest v1.Hash) ([]byte, error) {
	if raw, ok := p.store.readBlob(digest); ok {
		return raw, nil
	}
	key, who := kind+" "+digest.String(), p.client.repo.String()
	joined := p.store.flights.join(ctx, key+" of "+who, who, func(ctx context.Context, _ *meter) error {
		return p.store.retry(ctx, key, func() error {
			_, raw, err := p.client.small(ctx, kind, digest.String(), digest)
			if err != nil {
				return err
			}
			return p.store.writeBlob(digest, raw)
		})
	})
	if err := p.store.flights.wait(ctx, key+" of "+who, joined); err != nil {
		return nil, err
	}
	raw, ok := p.store.readBlob(digest)
	if !ok {
		return nil, fmt.Errorf("%s: it vanished from the image directory", digest)
	}
	return raw, nil
}

// resolved checks an image's configuration against its manifest.
func (w platform) resolved(digest v1.Hash, blobs []v1.Descriptor, raw []byte) (*resolved, error) {
	var config v1.ConfigFile
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("%w: the configuration is not JSON: %w", ErrInvalid, err)
	}
	if len(config.RootFS.DiffIDs) != len(blobs) || len(blobs) > maxLayers {
		return nil, fmt.Errorf("%w: the manifest has %d layers, the configuration %d", ErrInvalid, len(blobs), len(config.RootFS.DiffIDs))
	}
	for _, diffID := range config.RootFS.DiffIDs {
		if diffID.Algorithm != "sha256" {
			return nil, fmt.Errorf("%w: layers named by %s, only sha256 is supported", ErrInvalid, diffID.Algorithm)
		}
	}
	foreign, err := w.check(&config)
	return &resolved{digest: digest, blobs: blobs, config: &config, foreign: foreign}, err
}
