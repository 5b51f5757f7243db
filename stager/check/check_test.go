package check

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// closedPort was free a moment ago.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // It never accepted.
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// app answers by path.
func app(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ok":
		if r.UserAgent() != "diego-healthcheck" || r.Header.Get("X-Forwarded-Proto") != "https" {
			w.WriteHeader(http.StatusTeapot)
		}
	case "/moved":
		http.Redirect(w, r, "/ok", http.StatusFound)
	case "/created":
		w.WriteHeader(http.StatusCreated)
	case "/slow":
		<-r.Context().Done()
	case "/rude":
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func TestRun(t *testing.T) {
	open, closed := serve(t, app), closedPort(t)
	for _, row := range []struct {
		promise string
		check   Check
		code    int
		says    string
	}{
		{"a listening port", Check{Port: open}, ExitHealthy, ""},
		{"a closed port", Check{Port: closed}, ExitTCPRefused, `^failed to make TCP connection to 127.0.0.1:\d+: dial tcp 127.0.0.1:\d+: connect: connection refused$`},
		{"a good answer", Check{Port: open, URI: "/ok"}, ExitHealthy, ""},
		{"a good answer elsewhere", Check{Port: open, URI: "/moved"}, ExitHealthy, ""},
		{"200 only", Check{Port: open, URI: "/created"}, ExitHTTPStatus, `^failed to make HTTP request to '/created' on port \d+: received status code 201 in \d+ms$`},
		{"a bad answer", Check{Port: open, URI: "/bad"}, ExitHTTPStatus, `: received status code 503 in \d+ms$`},
		{"nobody answers HTTP", Check{Port: closed, URI: "/ok"}, ExitHTTPRefused, `^failed to make HTTP request to '/ok' on port \d+: connection refused$`},
		{"no answer", Check{Port: open, URI: "/rude"}, ExitHTTPRefused, `: EOF$`},
		{"a slow answer", Check{Port: open, URI: "/slow", Timeout: 50 * time.Millisecond}, ExitHTTPTimeout, `^failed to make HTTP request to '/slow' on port \d+: timed out after 0.05 seconds$`},
		{"no path", Check{Port: open, URI: "/%zz"}, ExitUsage, `no part of a URL$`},
	} {
		t.Run(row.promise, func(t *testing.T) {
			if row.check.Timeout == 0 {
				row.check.Timeout = 5 * time.Second
			}
			err := row.check.Run(t.Context(), "127.0.0.1")
			if got := CodeOf(err); got != row.code {
				t.Errorf("exit code %d, want %d: %v", got, row.code, err)
			}
			if err != nil && !regexp.MustCompile(row.says).MatchString(err.Error()) {
				t.Errorf("error %q does not match %s", err, row.says)
			}
		})
	}
}

// TestRun_tcpTimeout: an ended deadline stands for a host that swallows packets, which a test cannot have everywhere.
func TestRun_tcpTimeout(t *testing.T) {
	err := Check{Port: "1", Timeout: -time.Second}.Run(t.Context(), "127.0.0.1")
	if got := CodeOf(err); got != ExitTCPTimeout || !strings.Contains(err.Error(), "timed out after") {
		t.Errorf("exit code %d: %v", got, err)
	}
}

func TestCodeOf_otherErrors(t *testing.T) {
	if got := CodeOf(errors.New("x")); got != ExitOther {
		t.Errorf("got %d", got)
	}
}

func TestFirst(t *testing.T) {
	ip := func(text string) net.Addr { return &net.IPNet{IP: net.ParseIP(text)} }
	got, err := first([]net.Addr{ip("127.0.0.1"), ip("::1"), ip("fe80::1"), ip("10.1.2.3"), ip("10.9.9.9")})
	if err != nil || got != "10.1.2.3" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := first([]net.Addr{ip("127.0.0.1"), ip("fe80::1")}); CodeOf(err) != ExitNoInterface {
		t.Errorf("without an address: %v", err)
	}
}

// flipping is healthy or not by turns: good answers between bad ones.
func flipping(t *testing.T, bad, good int32) (string, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n := asked.Add(1); n <= bad || n > bad+good {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}), &asked
}

func TestUntilHealthy(t *testing.T) {
	port, asked := flipping(t, 3, 9)
	c := Check{Port: port, URI: "/", Timeout: 5 * time.Second}
	if err := c.UntilHealthy(t.Context(), "127.0.0.1", time.Millisecond, 0); err != nil || asked.Load() != 4 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	err := Check{Port: closedPort(t), Timeout: time.Second}.UntilHealthy(t.Context(), "127.0.0.1", 2*time.Millisecond, 30*time.Millisecond)
	pattern := regexp.MustCompile(`^Timed out after 30ms \(\d+ attempts\) waiting for startup check to succeed: failed to make TCP connection`)
	if CodeOf(err) != ExitTCPRefused || !pattern.MatchString(err.Error()) {
		t.Errorf("got %d %v", CodeOf(err), err)
	}
}

func TestWhileHealthy(t *testing.T) {
	port, asked := flipping(t, 0, 3)
	c := Check{Port: port, URI: "/", Timeout: 5 * time.Second}
	err := c.WhileHealthy(t.Context(), "127.0.0.1", time.Millisecond, Liveness)
	if CodeOf(err) != ExitHTTPStatus || !strings.HasPrefix(err.Error(), "Liveness check unsuccessful: failed to make HTTP request to '/'") || asked.Load() != 4 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.WhileHealthy(ctx, "127.0.0.1", time.Millisecond, Readiness); err != nil {
		t.Errorf("when nobody wants to know any more: %v", err)
	}
}
