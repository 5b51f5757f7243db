// Package check is healthcheck: it asks a process in the same container whether it listens, or answers HTTP.
//
// The address is the container's first IPv4 address that is not a loopback's, because that is where the world comes in:
// an app that listens on 127.0.0.1 only is not healthy. Texts and exit codes are those that Cloud Foundry's users see
// in their logs.
package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// The exit codes of healthcheck.
const (
	ExitHealthy     = 0
	ExitUsage       = 1
	ExitNoInterface = 3
	ExitTCPRefused  = 4
	ExitHTTPRefused = 5
	ExitHTTPStatus  = 6
	ExitTCPTimeout  = 64
	ExitHTTPTimeout = 65
	ExitOther       = 127
)

// Error is an unhealthy answer, or none.
type Error struct {
	Code    int
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// CodeOf returns the exit code for an error of this package: ExitHealthy for nil, ExitOther for one of another kind.
func CodeOf(err error) int {
	if err == nil {
		return ExitHealthy
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ExitOther
}

// Check is one question.
type Check struct {
	// Port is where the process should listen.
	Port string
	// URI is the path to GET; empty asks for a TCP connection only.
	URI string
	// Timeout bounds one answer.
	Timeout time.Duration
}

// Address returns the address to ask: the first IPv4 address that is not a loopback's.
func Address() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", &Error{Code: ExitNoInterface, Message: "failed to list network interfaces: " + err.Error()}
	}
	return first(addrs)
}

func first(addrs []net.Addr) (string, error) {
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String(), nil
		}
	}
	return "", &Error{Code: ExitNoInterface, Message: "failed to find a network interface with an IPv4 address other than loopback"}
}

// Run asks once.
func (c Check) Run(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.URI != "" {
		return c.http(ctx, address)
	}
	return c.tcp(ctx, address)
}

func (c Check) tcp(ctx context.Context, address string) error {
	target := net.JoinHostPort(address, c.Port)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", target)
	if err == nil {
		return conn.Close()
	}
	if isTimeout(err) {
		return &Error{ExitTCPTimeout, fmt.Sprintf("failed to make TCP connection to %s: timed out after %.2f seconds", target, c.Timeout.Seconds())}
	}
	return &Error{ExitTCPRefused, fmt.Sprintf("failed to make TCP connection to %s: %s", target, dialText(target, err))}
}

// dialText writes a failed dial as "dial tcp", which is what people search their logs for.
func dialText(target string, err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprintf("dial tcp %s: %v", target, op.Err)
	}
	return err.Error()
}

func (c Check) http(ctx context.Context, address string) error {
	prefix := fmt.Sprintf("failed to make HTTP request to '%s' on port %s: ", c.URI, c.Port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, c.Port)+c.URI, nil)
	if err != nil {
		return &Error{ExitUsage, prefix + "the path is no part of a URL"}
	}
	req.Header.Set("User-Agent", "diego-healthcheck")
	req.Header.Set("X-Forwarded-Proto", "https") // So that an app does not redirect to itself for want of TLS.
	transport := &http.Transport{DisableKeepAlives: true}
	began := time.Now()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	switch {
	case err == nil:
	case isTimeout(err):
		return &Error{ExitHTTPTimeout, fmt.Sprintf("%stimed out after %.2f seconds", prefix, c.Timeout.Seconds())}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{ExitHTTPRefused, prefix + "connection refused"}
	default:
		return &Error{ExitHTTPRefused, prefix + innermost(err).Error()}
	}
	defer resp.Body.Close() //nolint:errcheck // The body is not read.
	if resp.StatusCode != http.StatusOK {
		return &Error{ExitHTTPStatus, fmt.Sprintf("%sreceived status code %d in %dms", prefix, resp.StatusCode, time.Since(began).Milliseconds())}
	}
	return nil
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
