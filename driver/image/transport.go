package image

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/net/publicsuffix"

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
	if isLinkLocal(at.Addr()) {
		return fmt.Errorf("%w: %s is a link-local address", ErrRefused, at.Addr())
	}
	return nil
}

// isLinkLocal says whether an address is one of those where clouds hand out credentials.
func isLinkLocal(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLinkLocalUnicast() || ip == netip.MustParseAddr("fd00:ec2::254")
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
	// backoff is the wait before a request is sent again to a server that does not say for how long.
	backoff time.Duration
}

// of returns a guard for the pull of an image of a registry.
func (g *guard) of(registry string) *guard {
	return &guard{inner: g.inner, plain: g.plain, home: registry, backoff: g.backoff}
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
	if err := g.check(request); err != nil {
		return nil, err
	}
	answer, err := g.patient(request)
	if err != nil {
		return nil, err
	}
	if limit, ok := request.Context().Value(limitKey{}).(int64); ok {
		answer.Body = &bounded{ReadCloser: answer.Body, left: limit}
	}
	return answer, nil
}

// check refuses what is against this node's rules, whoever has brought the request here.
func (g *guard) check(request *http.Request) error {
	host := request.URL.Host
	if ip, err := netip.ParseAddr(request.URL.Hostname()); err == nil && isLinkLocal(ip) { // a proxy would go there for us
		return fmt.Errorf("%w: %s is a link-local address", ErrRefused, ip)
	}
	if g.home == "" {
		return nil
	}
	if isLoopback(host) && !isLoopback(g.home) && !slices.Contains(g.plain, host) {
		return fmt.Errorf("%w: registry %s points at %s, which is this node's own", ErrRefused, g.home, host)
	}
	if request.URL.Scheme != "https" && !g.plainAllowed(host) {
		return fmt.Errorf("%w: %s does not speak https; an operator can list it as an insecure registry", ErrRefused, host)
	}
	secret := strings.HasPrefix(request.Header.Get("Authorization"), "Basic ") || request.Method == http.MethodPost
	if secret && !trusts(g.home, host) {
		return fmt.Errorf("%w: registry %s wants its password to be sent to %s, which is of another domain", ErrRefused, g.home, host)
	}
	return nil
}

// trusts says whether a registry's credentials may be sent to a host, such as that of its token server: to itself, and
// to hosts of the same registered domain. Bearer tokens go to the registry alone; the library sees to that.
func trusts(registry, host string) bool {
	if registry == host || registry == name.DefaultRegistry && host == dockerHubLogin {
		return true
	}
	ours, theirs := hostname(registry), hostname(host)
	if ours == theirs {
		return true
	}
	if _, err := netip.ParseAddr(ours); err == nil {
		return false
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(ours)
	return err == nil && (theirs == domain || strings.HasSuffix(theirs, "."+domain))
}

// dockerHubLogin is where Docker Hub's tokens are.
const dockerHubLogin = "auth.docker.io"

func hostname(host string) string {
	if only, _, err := net.SplitHostPort(host); err == nil {
		host = only
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

const (
	// maxBusy is how often a request is sent again to a server that has too much to do, and maxRetryAfter how long a
	// wait it may ask for.
	maxBusy, maxRetryAfter = 5, 2 * time.Minute
)

// patient sends a request again when the server says that it was one too many (429), once the time is over that it
// names.
func (g *guard) patient(request *http.Request) (*http.Response, error) {
	for busy := 1; ; busy++ {
		answer, err := g.inner.RoundTrip(request)
		if err != nil || answer.StatusCode != http.StatusTooManyRequests || busy == maxBusy || request.Body != nil {
			return answer, err
		}
		wait := retryAfter(answer, g.backoff<<busy)
		if deadline, ok := request.Context().Deadline(); wait > maxRetryAfter || ok && time.Until(deadline) < wait {
			return answer, nil
		}
		_ = answer.Body.Close()
		select {
		case <-request.Context().Done():
			return nil, context.Cause(request.Context())
		case <-time.After(wait):
		}
	}
}

// retryAfter is how long a server wants to be left alone.
func retryAfter(answer *http.Response, preset time.Duration) time.Duration {
	text := answer.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return preset
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
