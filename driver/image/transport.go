package image

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"drover/driver"
)

// newTransport makes the HTTP transport for registries and archives.
func newTransport(files driver.TLSFiles) (*http.Transport, error) {
	config, err := files.Client()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second, Control: refuseLinkLocal}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // what is hashed is what is sent
	}, nil
}

// refuseLinkLocal keeps names and redirects of strangers away from the addresses where clouds hand out credentials.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q", ErrRefused, address)
	}
	if ip := at.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip == netip.MustParseAddr("fd00:ec2::254") {
		return fmt.Errorf("%w: %s is a link-local address", ErrRefused, ip)
	}
	return nil
}

// noDowngrade refuses redirects that end encryption, and those without end.
func noDowngrade(next *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", ErrRefused, maxRedirects)
	}
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return fmt.Errorf("%w: a redirect from https to %s", ErrRefused, next.URL.Scheme)
	}
	return nil
}

// maxRedirects is how many are followed.
const maxRedirects = 10

// guard is what requests to registries pass, redirected ones too.
type guard struct {
	inner http.RoundTripper
	plain []string
	// home is the registry of the image that is pulled; empty for none yet.
	home string
}

// of returns a guard for the pull of an image of a registry.
func (g *guard) of(registry string) *guard {
	return &guard{inner: g.inner, plain: g.plain, home: registry}
}

// limitKey is the key of a context's bound for the size of answers.
type limitKey struct{}

// withLimit bounds the answers to requests made with the context.
func withLimit(ctx context.Context, limit int64) context.Context {
	return context.WithValue(ctx, limitKey{}, limit)
}

// RoundTrip refuses plain http where it is not allowed, and the node's own services to the redirects of strangers, and
// bounds the answer.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if host := request.URL.Host; g.home != "" && isLoopback(host) && !isLoopback(g.home) && !slices.Contains(g.plain, host) {
		return nil, fmt.Errorf("%w: registry %s points at %s, which is this node's own", ErrRefused, g.home, host)
	}
	if request.URL.Scheme != "https" && !g.plainAllowed(request.URL.Host) {
		return nil, fmt.Errorf("%w: %s does not speak https; an operator can list it as an insecure registry", ErrRefused, request.URL.Host)
	}
	answer, err := g.inner.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if limit, ok := request.Context().Value(limitKey{}).(int64); ok {
		answer.Body = &bounded{ReadCloser: answer.Body, left: limit}
	}
	return answer, nil
}

func (g *guard) plainAllowed(host string) bool {
	return slices.Contains(g.plain, host) || isLoopback(host)
}

// isLoopback says whether a host, with or without a port, is this node by its words.
func isLoopback(host string) bool {
	name := host
	if only, _, err := net.SplitHostPort(host); err == nil {
		name = only
	}
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// bounded is a body that fails when it is larger than allowed.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: the answer is larger than allowed", ErrInvalid)
	}
	return n, err
}
