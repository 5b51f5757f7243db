package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// Kinds of layouts.
const (
	DockerArchive = "docker-archive" // what docker save writes
	OCIArchive    = "oci-archive"    // a tar file of an OCI directory
	OCIDirectory  = "oci"
)

// maxMembers bounds the members of an image archive.
const maxMembers = 20_000

// Layout is an image in a file or a directory of this node.
type Layout struct {
	// Kind is one of the constants above.
	Kind string
	// Root and Path say where it is. Path is opened below Root, whatever links there are.
	Root *os.Root
	Path string
	// Ref chooses among several images: a tag such as "redis:7", or an OCI reference name. Empty means the only one.
	Ref string
	// Platform and Owner are as in Request.
	Platform, Owner string
}

// Load makes sure that the image of a layout is on this node. What the layout says is believed no more than what a
// registry says: every digest is verified.
func (s *Store) Load(ctx context.Context, layout Layout, progress func(Progress)) (*Image, error) {
	what := "image " + layout.Kind + ":" + layout.Path
	img, err := s.load(ctx, layout, progress)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		return nil, explain(what, err)
	}
	img.Ref = layout.Kind + ":" + layout.Path + "@" + img.Digest
	return img, nil
}

func (s *Store) load(ctx context.Context, layout Layout, progress func(Progress)) (*Image, error) {
	began := time.Now()
	want, err := parsePlatform(layout.Platform)
	if err != nil {
		return nil, err
	}
	source, err := layout.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	var found *resolved
	var names map[v1.Hash]string
	if layout.Kind == DockerArchive {
		found, names, err = dockerImage(source, layout.Ref, want)
	} else {
		found, names, err = ociImage(ctx, source, layout.Ref, want)
	}
	if err != nil {
		return nil, err
	}
	img := s.image(found)
	img.Times.Resolve = time.Since(began)
	if err := s.reserve(layout.Owner, img.Layers); err != nil {
		return nil, err
	}
	from := origin{who: s.seal("layout", layout.Root.Name(), layout.Path), fetch: func(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, m *meter) error {
		stream, size, err := source.open(names[diffID])
		if err != nil {
			return err
		}
		blob.Size = size
		return s.unpackLayer(ctx, stream, blob, diffID, m)
	}}
	img.Times.Pull, img.Times.Unpack, err = s.layers(ctx, found, from, progress)
	return img, err
}

// files is what an image's files are read from by name.
type files interface {
	// open returns a file and its size.
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

// open opens the layout's file or directory.
func (l Layout) open(ctx context.Context) (files, error) {
	if l.Kind == OCIDirectory {
		root, err := l.Root.OpenRoot(l.Path)
		if err != nil {
			return nil, missing(err)
		}
		return directory{root}, nil
	}
	file, _, err := openRegular(l.Root, l.Path)
	if err != nil {
		return nil, err
	}
	archive, err := indexTar(ctx, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return archive, nil
}

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

// openRegular opens a regular file and nothing else, which could make us wait for ever.
func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, missing(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalid, name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// directory is an OCI layout in a directory.
type directory struct{ *os.Root }

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	file, size, err := openRegular(d.Root, name)
	return file, size, err
}

// archive is a tar file whose members are known. One that is compressed is inflated anew for each member.
type archive struct {
	ctx     context.Context //nolint:containedctx // of the Load that reads it
	file    *os.File
	packed  bool
	members map[string]member
}

type member struct {
	at, size int64
	link     string // to another member
}

func (a *archive) Close() error { return a.file.Close() }

// stream returns the inflated archive from its beginning.
func (a *archive) stream() (io.Reader, error) {
	raw := io.NewSectionReader(a.file, 0, 1<<62)
	if !a.packed {
		return raw, nil
	}
	inflated, err := gzip.NewReader(bufio.NewReaderSize(raw, 256<<10))
	if err != nil {
		return nil, fmt.Errorf("%w: it is neither a tar file nor gzip: %w", ErrInvalid, err)
	}
	return &stoppable{ctx: a.ctx, Reader: io.LimitReader(inflated, 4*maxArchive)}, nil
}

// stoppable ends with its context.
type stoppable struct {
	io.Reader
	ctx context.Context //nolint:containedctx // a reader's calls have none
}

func (s *stoppable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.Reader.Read(p)
}

// counter counts what is read; a file is skipped through by seeking.
type counter struct {
	io.Reader
	at int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.at += int64(n)
	return n, err
}

// seeker is a counter that can skip.
type seeker struct{ *counter }

func (s seeker) Seek(offset int64, whence int) (int64, error) {
	at, err := s.Reader.(io.Seeker).Seek(offset, whence) //nolint:forcetypeassert // made of a section of a file
	s.at = at
	return at, err
}

// indexTar finds the members of an archive.
func indexTar(ctx context.Context, file *os.File) (*archive, error) {
	a := &archive{ctx: ctx, file: file, members: map[string]member{}}
	start := make([]byte, 2)
	if _, err := file.ReadAt(start, 0); err != nil {
		return nil, fmt.Errorf("%w: it is empty", ErrInvalid)
	}
	a.packed = start[0] == 0x1f && start[1] == 0x8b
	stream, err := a.stream()
	if err != nil {
		return nil, err
	}
	count := &counter{Reader: stream}
	var in io.Reader = count
	if !a.packed {
		in = seeker{count}
	}
	list := tar.NewReader(in)
	for range maxMembers {
		header, err := list.Next()
		switch {
		case errors.Is(err, io.EOF):
			return a, nil
		case err != nil:
			return nil, fmt.Errorf("%w: not a tar file: %w", ErrInvalid, err)
		}
		name := path.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeReg:
			a.members[name] = member{at: count.at, size: header.Size}
		case tar.TypeSymlink:
			a.members[name] = member{link: path.Join(path.Dir(name), header.Linkname)}
		case tar.TypeLink:
			a.members[name] = member{link: path.Clean(header.Linkname)}
		}
	}
	return nil, fmt.Errorf("%w: it has more than %d members", ErrInvalid, maxMembers)
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	found, ok := a.members[path.Clean(name)]
	for range 3 { // docker save links what layers have in common
		if found.link == "" {
			break
		}
		found, ok = a.members[found.link]
	}
	if !ok || found.link != "" {
		return nil, 0, fmt.Errorf("%w: the archive has no %.200q", ErrInvalid, name)
	}
	if !a.packed {
		return io.NopCloser(io.NewSectionReader(a.file, found.at, found.size)), found.size, nil
	}
	stream, err := a.stream()
	if err != nil {
		return nil, 0, err
	}
	if _, err := io.CopyN(io.Discard, stream, found.at); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return io.NopCloser(io.LimitReader(stream, found.size)), found.size, nil
}

// readSmall reads a file that must not be large.
func readSmall(from files, name string) ([]byte, error) {
	file, size, err := from.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if size > maxManifest {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrInvalid, name, size, maxManifest)
	}
	return io.ReadAll(io.LimitReader(file, maxManifest))
}

// dockerImage finds an image in what docker save has written.
func dockerImage(from files, ref string, want platform) (*resolved, map[v1.Hash]string, error) {
	raw, err := readSmall(from, "manifest.json")
	if err != nil {
		return nil, nil, err
	}
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(raw, &images); err != nil {
		return nil, nil, fmt.Errorf("%w: its manifest.json is not understood: %w", ErrInvalid, err)
	}
	var offered []string
	fits := images[:0:0]
	for _, image := range images {
		offered = append(offered, image.RepoTags...)
		named := slices.ContainsFunc(image.RepoTags, func(tag string) bool { return sameTag(tag, ref) })
		if ref == "" || named || len(images) == 1 && len(image.RepoTags) == 0 {
			fits = append(fits, image)
		}
	}
	if len(fits) != 1 {
		return nil, nil, fmt.Errorf("%w: %d of its images fit %q; it has %.500s", ErrNotFound, len(fits), ref, strings.Join(offered, ", "))
	}
	chosen := fits[0]
	config, err := readSmall(from, chosen.Config)
	if err != nil {
		return nil, nil, err
	}
	digest, _, err := v1.SHA256(strings.NewReader(string(config)))
	if err != nil {
		return nil, nil, err
	}
	var parsed v1.ConfigFile
	if err := json.Unmarshal(config, &parsed); err != nil || len(parsed.RootFS.DiffIDs) != len(chosen.Layers) {
		return nil, nil, fmt.Errorf("%w: its configuration does not fit its layers: %w", ErrInvalid, errors.Join(err))
	}
	names := map[v1.Hash]string{}
	var blobs []v1.Descriptor
	for n, diffID := range parsed.RootFS.DiffIDs { // layers are named by what they inflate to
		names[diffID] = chosen.Layers[n]
		blobs = append(blobs, v1.Descriptor{})
	}
	found, err := want.resolved(digest, blobs, config)
	return found, names, err
}

// sameTag compares tags as people write them: without a registry, and without latest.
func sameTag(a, b string) bool {
	short := func(tag string) string {
		tag = strings.TrimPrefix(strings.TrimPrefix(tag, "docker.io/"), "library/")
		return strings.TrimSuffix(tag, ":latest")
	}
	return short(a) == short(b)
}

// refName is the annotation by which an OCI layout names its images.
const refName = "org.opencontainers.image.ref.name"

// ociImage finds an image in an OCI layout.
func ociImage(ctx context.Context, from files, ref string, want platform) (*resolved, map[v1.Hash]string, error) {
	raw, err := readSmall(from, "index.json")
	if err != nil {
		return nil, nil, err
	}
	index, err := parseManifest(raw)
	if err != nil || len(index.Manifests) == 0 {
		return nil, nil, fmt.Errorf("%w: its index.json names no image: %w", ErrInvalid, errors.Join(err))
	}
	entries := index.Manifests
	if ref != "" {
		entries = slices.DeleteFunc(entries, func(d v1.Descriptor) bool { return d.Annotations[refName] != ref && d.Digest.String() != ref })
		if len(entries) == 0 {
			return nil, nil, fmt.Errorf("%w: it has no image of that name: %q", ErrNotFound, ref)
		}
	}
	first, err := want.choose(entries)
	if err != nil {
		return nil, nil, err
	}
	read := func(_ context.Context, digest v1.Hash) ([]byte, error) { return readBlobFile(from, digest) }
	digest, found, err := want.follow(ctx, first, read)
	if err != nil {
		return nil, nil, err
	}
	config, err := readBlobFile(from, found.Config.Digest)
	if err != nil {
		return nil, nil, err
	}
	image, err := want.resolved(digest, found.Layers, config)
	if err != nil {
		return nil, nil, err
	}
	names := map[v1.Hash]string{}
	for n, layer := range found.Layers {
		names[image.config.RootFS.DiffIDs[n]] = blobName(layer.Digest)
	}
	return image, names, nil
}

func blobName(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

// readBlobFile reads a small blob of an OCI layout, and verifies it.
func readBlobFile(from files, digest v1.Hash) ([]byte, error) {
	raw, err := readSmall(from, blobName(digest))
	if err != nil {
		return nil, err
	}
	sum, err := v1.Hasher(digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	sum.Write(raw)
	return raw, verify(sum, digest)
}
