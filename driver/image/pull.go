package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"drover/driver"
	"drover/driver/unpack"
)

const (
	// maxManifest bounds manifests, indexes and configurations.
	maxManifest = 4 << 20
	// maxLayers is what an overlay can be made of.
	maxLayers = 500
	// maxIndexes is how many indexes may be between a reference and its image.
	maxIndexes = 3
	// maxReference bounds the text of a reference.
	maxReference = 1024
	// parallel is how many layers of an image are transferred at the same time.
	parallel = 3
)

// pull is one call of Store.Pull.
type pull struct {
	store  *Store
	ref    name.Reference
	puller *remote.Puller
}

// Pull makes sure that an image is on this node. The functions that report progress are called from another goroutine,
// one call at a time, and never after Pull has returned.
func (s *Store) Pull(ctx context.Context, ref string, auth *Auth, progress func(Progress)) (*Image, error) {
	parsed, err := s.parse(ref)
	if err != nil {
		return nil, err
	}
	p := &pull{store: s, ref: parsed}
	p.puller, err = remote.NewPuller(
		remote.WithTransport(s.transport.of(parsed.Context().RegistryStr())), remote.WithAuth(authenticator(parsed, auth)), remote.WithUserAgent("drover"), remote.WithJobs(parallel),
		remote.WithRetryBackoff(remote.Backoff{Duration: s.tune.backoff, Factor: 2, Jitter: 0.1, Steps: 3}))
	if err != nil {
		return nil, explain("image "+ref, err)
	}
	img, err := p.run(ctx, progress)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("image %s: %w", ref, context.Cause(ctx))
		}
		return nil, explain("image "+ref, err)
	}
	return img, nil
}

// parse reads a reference as registries' users write it.
func (s *Store) parse(ref string) (name.Reference, error) {
	if len(ref) > maxReference || strings.Contains(ref, "://") {
		return nil, fmt.Errorf("image %.100q: %w: write it as host/repository:tag or host/repository@digest, without a scheme", ref, ErrBadReference)
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w: write it as host/repository:tag or host/repository@digest: %w", ref, ErrBadReference, err)
	}
	if slices.Contains(s.options.Insecure, parsed.Context().RegistryStr()) {
		return name.ParseReference(ref, name.Insecure)
	}
	return parsed, nil
}

// authenticator gives credentials to the registry they are for.
func authenticator(ref name.Reference, auth *Auth) authn.Authenticator {
	if auth == nil || auth.Username == "" && auth.Password == "" {
		return authn.Anonymous
	}
	if auth.ServerAddress != "" && registryOf(auth.ServerAddress) != registryOf(ref.Context().RegistryStr()) {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{Username: auth.Username, Password: auth.Password})
}

// registryOf is the host of an address as docker's configuration writes it, such as https://index.docker.io/v1/.
func registryOf(address string) string {
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

func (p *pull) run(ctx context.Context, progress func(Progress)) (*Image, error) {
	digest, found, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	config, err := p.config(ctx, found)
	if err != nil {
		return nil, err
	}
	img := &Image{Ref: p.ref.Context().Digest(digest.String()).String(), Digest: digest.String(), Config: runConfig(config)}
	for _, diffID := range config.RootFS.DiffIDs {
		img.Layers = append(img.Layers, driver.Layer{Dir: p.store.layerDir(diffID), Stored: p.store.options.Stored})
	}
	return img, p.layers(ctx, found.Layers, config.RootFS.DiffIDs, progress)
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
	return &found, nil
}

// resolve finds the manifest of the image for this platform.
func (p *pull) resolve(ctx context.Context) (v1.Hash, *manifest, error) {
	ref := p.ref
	for range maxIndexes {
		digest, raw, err := p.manifest(ctx, ref)
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
		chosen, err := choose(found.Manifests)
		if err != nil {
			return v1.Hash{}, nil, err
		}
		ref = p.ref.Context().Digest(chosen.String())
	}
	return v1.Hash{}, nil, fmt.Errorf("%w: more than %d indexes of indexes", ErrInvalid, maxIndexes)
}

// manifest returns what a reference names, from here when it has a digest.
func (p *pull) manifest(ctx context.Context, ref name.Reference) (v1.Hash, []byte, error) {
	if pinned, ok := ref.(name.Digest); ok {
		digest, err := v1.NewHash(pinned.DigestStr())
		if err != nil {
			return digest, nil, fmt.Errorf("%w: %w", ErrBadReference, err)
		}
		if raw, ok := p.store.readBlob(digest); ok {
			return digest, raw, nil
		}
	}
	ctx, cancel := context.WithTimeoutCause(withLimit(ctx, maxManifest), p.store.tune.answer, errStalled)
	defer cancel()
	answer, err := p.puller.Get(ctx, ref)
	if err != nil {
		return v1.Hash{}, nil, late(ctx, err)
	}
	if pinned, ok := ref.(name.Digest); ok && answer.Digest.String() != pinned.DigestStr() {
		return v1.Hash{}, nil, fmt.Errorf("%w: the manifest is not %s", ErrChecksum, pinned.DigestStr())
	}
	return answer.Digest, answer.Manifest, p.store.writeBlob(answer.Digest, answer.Manifest)
}

// late says that a request has taken too long, in place of whatever the libraries made of that.
func late(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w: the server does not answer: %w", ErrUnreachable, errStalled)
	}
	return err
}

// choose picks an index's entry for this platform.
func choose(entries []v1.Descriptor) (v1.Hash, error) {
	var offered []string
	for _, entry := range entries {
		if entry.Platform == nil || entry.Platform.OS == "linux" && entry.Platform.Architecture == runtime.GOARCH {
			return entry.Digest, nil
		}
		offered = append(offered, entry.Platform.String())
	}
	return v1.Hash{}, fmt.Errorf("%w: there is no image for linux/%s, only for %s", ErrNotFound, runtime.GOARCH, strings.Join(offered, ", "))
}

// config returns an image's configuration, checked against its manifest.
func (p *pull) config(ctx context.Context, found *manifest) (*v1.ConfigFile, error) {
	raw, err := p.blob(ctx, found.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("%w: the configuration is not JSON: %w", ErrInvalid, err)
	}
	if len(config.RootFS.DiffIDs) != len(found.Layers) {
		return nil, fmt.Errorf("%w: the manifest has %d layers, the configuration %d", ErrInvalid, len(found.Layers), len(config.RootFS.DiffIDs))
	}
	for _, diffID := range config.RootFS.DiffIDs {
		if diffID.Algorithm != "sha256" {
			return nil, fmt.Errorf("%w: layers named by %s, only sha256 is supported", ErrInvalid, diffID.Algorithm)
		}
	}
	if system, arch := config.OS, config.Architecture; system != "" && system != "linux" || arch != "" && arch != runtime.GOARCH {
		return nil, fmt.Errorf("%w: the image is for %s/%s, this node is linux/%s", ErrNotFound, system, arch, runtime.GOARCH)
	}
	return &config, nil
}

// blob returns a small blob, from here when it is.
func (p *pull) blob(ctx context.Context, want *v1.Descriptor) ([]byte, error) {
	if raw, ok := p.store.readBlob(want.Digest); ok {
		return raw, nil
	}
	if want.Size < 0 || want.Size > maxManifest {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrInvalid, want.Size, maxManifest)
	}
	ctx, cancel := context.WithTimeoutCause(withLimit(ctx, maxManifest), p.store.tune.answer, errStalled)
	defer cancel()
	stream, err := p.open(ctx, want.Digest)
	if err != nil {
		return nil, late(ctx, err)
	}
	defer func() { _ = stream.Close() }()
	raw, err := io.ReadAll(stream)
	if err != nil {
		return nil, late(ctx, err)
	}
	sum, err := v1.Hasher(want.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	sum.Write(raw)
	if err := verify(sum, want.Digest); err != nil {
		return nil, err
	}
	return raw, p.store.writeBlob(want.Digest, raw)
}

func (p *pull) open(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	layer, err := p.puller.Layer(ctx, p.ref.Context().Digest(digest.String()))
	if err != nil {
		return nil, err
	}
	return layer.Compressed()
}

// layers makes sure that all layers are here, a few at a time.
func (p *pull) layers(ctx context.Context, blobs []v1.Descriptor, diffIDs []v1.Hash, progress func(Progress)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	gauge := &gauge{}
	defer watch(p.store.tune.watch, progress, gauge.progress)()
	for n, blob := range blobs {
		if isDir(p.store.layerDir(diffIDs[n])) {
			continue
		}
		gauge.expect(blob.Size)
		key := "layer " + diffIDs[n].String()
		group.Go(func() error {
			joined := p.store.flights.join(ctx, key, func(ctx context.Context, m *meter) error { return p.layer(ctx, blob, diffIDs[n], m) })
			gauge.add(&joined.meter)
			if err := p.store.flights.wait(ctx, key, joined); err != nil {
				return fmt.Errorf("layer %s: %w", blob.Digest, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// layer transfers and unpacks one layer.
func (p *pull) layer(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, m *meter) error {
	if isDir(p.store.layerDir(diffID)) {
		return nil
	}
	p.store.log.Info("pulling a layer", "repository", p.ref.Context().String(), "digest", blob.Digest.String(), "bytes", blob.Size)
	return p.store.retry(ctx, "layer "+blob.Digest.String(), func() error {
		m.done.Store(0)
		return p.tryLayer(ctx, blob, diffID, m)
	})
}

func (p *pull) tryLayer(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, m *meter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sum, err := v1.Hasher(blob.Digest.Algorithm)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	stream, err := p.open(ctx, blob.Digest)
	if err != nil {
		return err
	}
	in := newBody(stream, sum, m, blob.Size, p.store.tune.idle, cancel)
	defer func() { _ = in.Close() }()
	return p.store.build(p.store.layerDir(diffID), func(tree string) error {
		job := p.store.job(tree)
		job.Whiteouts, job.Format = true, unpack.Auto
		stats, err := unpack.Run(ctx, p.store.options.Unpacker, job, in)
		if err := in.transferError(ctx, err, func() error { return verify(sum, blob.Digest) }); err != nil {
			return err
		}
		if stats.DiffID != diffID.String() {
			return fmt.Errorf("%w: the layer inflates to %q, the configuration says %s", ErrChecksum, stats.DiffID, diffID)
		}
		return nil
	})
}

// build makes a tree and gives it its final name, or leaves nothing.
func (s *Store) build(final string, fill func(tree string) error) error {
	dir, tree, err := s.stage()
	if err != nil {
		return err
	}
	err = fill(tree)
	if err == nil {
		err = publish(tree, final)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// runConfig picks what decides how an image is run.
func runConfig(file *v1.ConfigFile) driver.ImageConfig {
	config := driver.ImageConfig{
		Env: file.Config.Env, User: file.Config.User, Entrypoint: file.Config.Entrypoint, Cmd: file.Config.Cmd,
		WorkingDir: file.Config.WorkingDir, StopSignal: file.Config.StopSignal,
	}
	for port := range file.Config.ExposedPorts {
		config.ExposedPorts = append(config.ExposedPorts, port)
	}
	slices.Sort(config.ExposedPorts)
	return config
}
