package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// client speaks with one repository of a registry, as one user. It logs in with the first request.
type client struct {
	store *Store
	repo  name.Repository
	login authn.Authenticator
	// find, when set, finds out who to log in as.
	find func(ctx context.Context) (authn.Authenticator, error)

	mu   sync.Mutex
	http *http.Client
}

// connect finds out how the registry wants its users to log in, once.
func (c *client) connect(ctx context.Context) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		return c.http, nil
	}
	if c.find != nil {
		login, err := c.find(ctx)
		if err != nil {
			return nil, err
		}
		c.login = login
	}
	inner := transport.NewUserAgent(c.store.transport.of(c.repo.RegistryStr()), "drover")
	login, err := transport.NewWithContext(withLimit(ctx, maxManifest), c.repo.Registry, c.login, inner, []string{c.repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, firstLine{err}
	}
	c.http = &http.Client{Transport: login, CheckRedirect: noDowngrade}
	return c.http, nil
}

// firstLine is an error of a login, whose later lines may repeat what a token server has sent.
type firstLine struct{ error }

func (f firstLine) Error() string {
	first, _, _ := strings.Cut(f.error.Error(), "\n")
	return first
}

func (f firstLine) Unwrap() error { return f.error }

// do sends a request for something of the repository. What is no success is an error.
func (c *client) do(ctx context.Context, method, kind, id string, header map[string]string) (*http.Response, error) {
	session, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	at := url.URL{Scheme: c.repo.Scheme(), Host: c.repo.RegistryStr(), Path: "/v2/" + c.repo.RepositoryStr() + "/" + kind + "/" + id}
	request, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be asked for", ErrBadReference)
	}
	for key, value := range header {
		request.Header.Set(key, value)
	}
	answer, err := session.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
		answer.Body = &bounded{ReadCloser: answer.Body, left: maxManifest}
		return nil, errors.Join(transport.CheckError(answer, http.StatusOK), answer.Body.Close())
	}
	return answer, nil
}

// manifestTypes are the kinds of manifests that are understood.
func manifestTypes() string {
	return strings.Join([]string{
		string(types.OCIManifestSchema1), string(types.OCIImageIndex),
		string(types.DockerManifestSchema2), string(types.DockerManifestList),
	}, ", ")
}

// ask asks which digest a tag has now; false when the registry does not tell without sending the manifest. Registries
// count downloads of manifests, but not such questions.
func (c *client) ask(ctx context.Context, tag string) (v1.Hash, bool, error) {
	answer, err := c.do(ctx, http.MethodHead, "manifests", tag, map[string]string{"Accept": manifestTypes()})
	if err != nil {
		var refused *transport.Error
		if errors.As(err, &refused) && refused.StatusCode < 500 && refused.StatusCode != http.StatusTooManyRequests {
			return v1.Hash{}, false, nil // a GET will say why
		}
		return v1.Hash{}, false, err
	}
	digest, err := v1.NewHash(answer.Header.Get("Docker-Content-Digest"))
	known := err == nil && digest.Algorithm == "sha256"
	return digest, known, answer.Body.Close()
}

// small reads a manifest or a configuration whole. What has a digest is verified.
func (c *client) small(ctx context.Context, kind, id string, want v1.Hash) (v1.Hash, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(withLimit(ctx, maxManifest), c.store.tune.answer, errSilent)
	defer cancel()
	header := map[string]string{}
	if kind == "manifests" {
		header["Accept"] = manifestTypes()
	}
	answer, err := c.do(ctx, http.MethodGet, kind, id, header)
	if err != nil {
		return want, nil, late(ctx, err)
	}
	raw, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return want, nil, late(ctx, err)
	}
	sum, err := v1.Hasher(orSHA256(want.Algorithm))
	if err != nil {
		return want, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	sum.Write(raw)
	if want.Hex == "" {
		return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}, raw, nil
	}
	return want, raw, verify(sum, want)
}

func orSHA256(algorithm string) string {
	if algorithm == "" {
		return "sha256"
	}
	return algorithm
}

// blob begins to read a layer, from the offset if the registry can.
func (c *client) blob(ctx context.Context, blob v1.Descriptor, offset int64) (part, error) {
	header := map[string]string{}
	if offset > 0 {
		header["Range"] = "bytes=" + strconv.FormatInt(offset, 10) + "-"
	}
	answer, err := c.do(ctx, http.MethodGet, "blobs", blob.Digest.String(), header)
	var refused *transport.Error
	if errors.As(err, &refused) && refused.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		answer, err = c.do(ctx, http.MethodGet, "blobs", blob.Digest.String(), nil) // it knows ranges, but not to the end
	}
	if err != nil {
		return part{}, err
	}
	begins, err := beginning(answer)
	if err == nil && answer.ContentLength >= 0 && begins+answer.ContentLength != blob.Size {
		err = fmt.Errorf("%w: the registry has %d bytes of it, the manifest says %d", ErrChecksum, begins+answer.ContentLength, blob.Size)
	}
	if err != nil {
		return part{}, errors.Join(err, answer.Body.Close())
	}
	return part{ReadCloser: answer.Body, from: begins}, nil
}

// beginning is the offset that an answer begins at.
func beginning(answer *http.Response) (int64, error) {
	if answer.StatusCode != http.StatusPartialContent {
		return 0, nil
	}
	text, _, _ := strings.Cut(strings.TrimPrefix(answer.Header.Get("Content-Range"), "bytes "), "-")
	offset, err := strconv.ParseInt(text, 10, 64)
	if err != nil || offset < 0 {
		return 0, fmt.Errorf("%w: Content-Range %q is not understood", ErrInvalid, answer.Header.Get("Content-Range"))
	}
	return offset, nil
}
