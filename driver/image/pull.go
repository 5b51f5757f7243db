package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"drover/driver"
	"drover/driver/unpack"
)

// parallel is how many layers of an image are transferred at the same time.
const parallel = 3

// Pull makes sure that an image is on this node. The functions that report progress are called from another goroutine,
// one call at a time, and never after Pull has returned.
func (s *Store) Pull(ctx context.Context, request Request, progress func(Progress)) (*Image, error) {
	ref, err := s.parse(request.Ref)
	if err != nil {
		return nil, err
	}
	want, err := parsePlatform(request.Platform)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", request.Ref, err)
	}
	p := &pull{store: s, ref: ref, platform: want, request: request}
	img, err := p.as(ctx, request.Auth, progress)
	if request.AuthSoftFail && errors.Is(err, ErrUnauthorized) && (request.Auth != nil || request.Login != nil) {
		p.request.Login = nil
		img, err = p.as(ctx, nil, progress)
	}
	return img, err
}

// find asks who this node is for the registry.
func (p *pull) find(ctx context.Context) (authn.Authenticator, error) {
	repo := p.ref.Context()
	auth, err := p.request.Login(ctx, repo.RegistryStr(), repo.RepositoryStr())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return authenticator(p.ref, auth), nil
}

// pull is one call of Store.Pull, or of Store.Load.
type pull struct {
	store    *Store
	ref      name.Reference
	platform platform
	request  Request
	client   *client
}

// as pulls as a user, or as nobody.
func (p *pull) as(ctx context.Context, auth *Auth, progress func(Progress)) (*Image, error) {
	p.client = &client{store: p.store, repo: p.ref.Context(), login: authenticator(p.ref, auth)}
	if auth == nil && p.request.Login != nil {
		p.client.find = func(ctx context.Context) (authn.Authenticator, error) { return p.find(ctx) }
	}
	img, err := p.run(ctx, auth, progress)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("image %s: %w", p.request.Ref, context.Cause(ctx))
		}
		return nil, explain("image "+p.request.Ref, err)
	}
	return img, nil
}

func (p *pull) run(ctx context.Context, auth *Auth, progress func(Progress)) (*Image, error) {
	began := time.Now()
	found, err := p.resolve(ctx, auth)
	if err != nil {
		return nil, err
	}
	img := p.store.image(found)
	img.Ref = p.ref.Context().Digest(img.Digest).String()
	img.Unconfirmed = found.unconfirmed
	img.Times.Resolve = time.Since(began)
	if err := p.store.reserve(p.request.Owner, img.Layers); err != nil {
		return nil, err
	}
	img.Times.Pull, img.Times.Unpack, err = p.store.layers(ctx, found, origin{who: p.who(auth), fetch: p.fromRegistry}, progress)
	if err != nil {
		return nil, err
	}
	return img, p.remember(found, auth)
}

// who names a user of the image's repository.
func (p *pull) who(auth *Auth) string {
	if auth == nil && p.request.Login != nil {
		return p.store.seal(p.ref.Context().String(), "this node") // whose passwords may change by the hour
	}
	if auth == nil {
		auth = &Auth{}
	}
	return p.store.seal(p.ref.Context().String(), auth.Username, auth.Password, auth.IdentityToken, auth.RegistryToken)
}

// resolved is an image of which everything but the layers is here.
type resolved struct {
	digest v1.Hash
	blobs  []v1.Descriptor
	config *v1.ConfigFile
	// foreign is its platform where it is not the node's.
	foreign     string
	unconfirmed error
}

// image is what the world is told of a resolved image.
func (s *Store) image(found *resolved) *Image {
	img := &Image{Digest: found.digest.String(), Config: runConfig(found.config), Foreign: found.foreign}
	for _, diffID := range found.config.RootFS.DiffIDs {
		img.Layers = append(img.Layers, driver.Layer{Dir: s.layerDir(diffID), Stored: s.options.Stored})
	}
	return img
}

// origin is where layers come from.
type origin struct {
	// who names the place, and the user that it knows us as.
	who string
	// fetch transfers and unpacks one layer.
	fetch func(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, m *meter) error
}

// layers makes sure that all layers are here, a few at a time. It returns how long bytes came, and how long unpacking
// took from then on.
func (s *Store) layers(ctx context.Context, found *resolved, from origin, progress func(Progress)) (transfer, unpacking time.Duration, err error) {
	missing := found.missing(s)
	if len(missing) == 0 {
		return 0, 0, nil
	}
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	gauge := &gauge{layers: len(missing)}
	for _, n := range missing {
		gauge.total += max(found.blobs[n].Size, 0)
	}
	defer watch(s.tune.watch, progress, gauge.progress)()
	for _, n := range missing {
		group.Go(func() error {
			if err := s.layer(ctx, found.blobs[n], found.config.RootFS.DiffIDs[n], from, gauge); err != nil {
				return fmt.Errorf("layer %s: %w", found.config.RootFS.DiffIDs[n], err)
			}
			gauge.done.Add(1)
			return nil
		})
	}
	err = group.Wait()
	last := gauge.last(began)
	return last.Sub(began), time.Since(last), err
}

// missing are the layers that are not here, each once.
func (r *resolved) missing(s *Store) []int {
	var list []int
	seen := map[v1.Hash]bool{}
	for n, diffID := range r.config.RootFS.DiffIDs {
		if !seen[diffID] && !isDir(s.layerDir(diffID)) {
			list = append(list, n)
		}
		seen[diffID] = true
	}
	return list
}

// layer gets one layer, or waits for those who are at it. When they fail who ask somebody else, or as somebody else, it
// is tried once more in our name.
func (s *Store) layer(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, from origin, g *gauge) error {
	fly := func(key string) (string, error) {
		joined := s.flights.join(ctx, key, from.who, func(ctx context.Context, m *meter) error {
			return s.withRoom(ctx, func() error { return from.fetch(ctx, blob, diffID, m) })
		})
		g.add(&joined.meter)
		return joined.who, s.flights.wait(ctx, key, joined)
	}
	key := "layer " + diffID.String()
	who, err := fly(key)
	if err != nil && who != from.who && ctx.Err() == nil {
		_, err = fly(key + " for " + from.who)
	}
	return err
}

// withRoom tries again once when the disk was full and something could be removed.
func (s *Store) withRoom(ctx context.Context, work func() error) error {
	err := work()
	if err == nil || !isFull(err) || ctx.Err() != nil {
		return err
	}
	freed, collectErr := s.makeRoom()
	if collectErr != nil {
		s.log.Warn("cannot make room in the image directory", "error", collectErr)
	}
	if freed == 0 {
		return err
	}
	return work()
}

// fromRegistry transfers and unpacks one layer.
func (p *pull) fromRegistry(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, m *meter) error {
	if isDir(p.store.layerDir(diffID)) {
		return nil
	}
	p.store.log.Info("pulling a layer", "repository", p.ref.Context().String(), "digest", blob.Digest.String(), "bytes", blob.Size)
	m.done.Store(0)
	stream := resumable{
		open:    func(ctx context.Context, offset int64) (part, error) { return p.client.blob(ctx, blob, offset) },
		size:    blob.Size,
		idle:    p.store.tune.idle,
		backoff: p.store.tune.backoff,
		warn: func(at int64, err error) {
			p.store.log.Warn("a transfer was cut and goes on", "digest", blob.Digest.String(), "at", at, "error", words(err))
		},
	}.begin(ctx, nil)
	return p.store.unpackLayer(ctx, stream, blob, diffID, m)
}

// unpackLayer unpacks the blob of a layer, which is verified on the way; a blob without a digest by its diff id alone.
func (s *Store) unpackLayer(ctx context.Context, stream io.ReadCloser, blob v1.Descriptor, diffID v1.Hash, m *meter) error {
	sum, err := v1.Hasher(orSHA256(blob.Digest.Algorithm))
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrInvalid, err), stream.Close())
	}
	in := newBody(stream, sum, m, blob.Size)
	defer func() { _ = in.Close() }()
	return s.build(s.layerDir(diffID), func(tree string) (int64, error) {
		job := s.job(tree)
		job.Whiteouts, job.Format = true, unpack.Auto
		stats, err := unpack.Run(ctx, s.options.Unpacker, job, in)
		if err := in.transferError(err, func() error {
			if blob.Digest.Hex == "" {
				return nil
			}
			return verify(sum, blob.Digest)
		}); err != nil {
			return 0, err
		}
		if stats.DiffID != diffID.String() {
			return 0, fmt.Errorf("%w: the layer inflates to %q, the configuration says %s", ErrChecksum, stats.DiffID, diffID)
		}
		return diskUse(stats), nil
	})
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
	config.Volumes = slices.Sorted(maps.Keys(file.Config.Volumes))
	return config
}

// parse reads a reference as registries' users write it.
func (s *Store) parse(ref string) (name.Reference, error) {
	bare := strings.TrimPrefix(strings.TrimPrefix(ref, "docker://"), "https://")
	if len(ref) > maxReference || strings.Contains(bare, "://") {
		return nil, fmt.Errorf("image %.100q: %w: write it as host/repository:tag or host/repository@digest", ref, ErrBadReference)
	}
	parsed, err := name.ParseReference(bare)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w: write it as host/repository:tag or host/repository@digest: %w", ref, ErrBadReference, err)
	}
	if slices.Contains(s.options.Insecure, parsed.Context().RegistryStr()) {
		return name.ParseReference(bare, name.Insecure)
	}
	return parsed, nil
}

// maxReference bounds the text of a reference.
const maxReference = 1024
