package action

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// runLRP runs an LRP in a fake world, and tells after how long it was found healthy (-1: never).
func runLRP(t *testing.T, w *fakeWorld, lrp models.DesiredLRP) (Outcome, time.Duration) {
	t.Helper()
	raw, err := lrp.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, w)
	o.Work.Info = driver.RunInfo{Kind: driver.KindLRP, GUID: "guid", Definition: raw}
	begin, healthy := time.Now(), time.Duration(-1)
	return Run(t.Context(), o, func() { healthy = time.Since(begin) }), healthy
}

// dialer lets connections succeed in certain spans of time.
func dialer(good func(since time.Duration) bool) func(context.Context, string) (net.Conn, error) {
	begin := time.Now()
	return func(context.Context, string) (net.Conn, error) {
		if good(time.Since(begin)) {
			ours, theirs := net.Pipe()
			_ = theirs.Close()
			return ours, nil
		}
		return nil, errors.New("dial tcp 127.0.0.1:8080: connect: connection refused")
	}
}

func tcp() *models.CheckDefinition {
	return &models.CheckDefinition{Checks: []*models.Check{{TcpCheck: &models.TCPCheck{Port: 8080}}}}
}

// lrpStory is an LRP and what becomes of it.
type lrpStory struct {
	name    string
	lrp     models.DesiredLRP
	port    func(time.Duration) bool
	want    Outcome
	healthy time.Duration
	took    time.Duration
}

func lrpStories() []lrpStory {
	after := func(d time.Duration) func(time.Duration) bool { return func(t time.Duration) bool { return t >= d } }
	between := func(from, to time.Duration) func(time.Duration) bool {
		return func(t time.Duration) bool { return t >= from && t < to }
	}
	never := func(time.Duration) bool { return false }
	forever := models.WrapAction(run("forever"))
	const refused = "failed to make TCP connection to 127.0.0.1:8080: dial tcp 127.0.0.1:8080: connect: connection refused"
	return []lrpStory{
		{
			name: "without checks is healthy at once", lrp: models.DesiredLRP{Action: models.WrapAction(run("after 1h 3"))},
			want: Outcome{Code: 3, Reason: "APP: Exited with status 3"}, took: time.Hour,
		},
		{
			name: "without checks crashes also when it exits well", lrp: models.DesiredLRP{Action: models.WrapAction(run("after 1s 0"))},
			want: Outcome{Reason: "APP: Exited with status 0"}, took: time.Second,
		},
		{
			name: "whose setup fails does not begin", healthy: -1,
			lrp:  models.DesiredLRP{Setup: models.WrapAction(run("exit 2")), Action: forever},
			want: Outcome{Code: 2, Reason: "APP: Exited with status 2"},
		},
		{
			name: "is found healthy soon after it listens", port: between(1100*time.Millisecond, 40*time.Second),
			lrp: models.DesiredLRP{Action: forever, CheckDefinition: tcp()}, healthy: 1500 * time.Millisecond,
			want: Outcome{Code: 1, Reason: "Instance became unhealthy: Liveness check unsuccessful: " + refused}, took: 61500 * time.Millisecond,
		},
		{
			name: "is asked less often later", port: between(10600*time.Millisecond, 20*time.Second),
			lrp: models.DesiredLRP{Action: forever, CheckDefinition: tcp()}, healthy: 12 * time.Second,
			want: Outcome{Code: 1, Reason: "Instance became unhealthy: Liveness check unsuccessful: " + refused}, took: 42 * time.Second,
		},
		{
			name: "that never listens is given up", port: never, healthy: -1, took: 3001 * time.Millisecond,
			lrp: models.DesiredLRP{Action: forever, CheckDefinition: tcp(), StartTimeoutMs: 3001},
			want: Outcome{Code: 1, Reason: "Instance never healthy after 3.001s: Timed out after 3.001s (8 attempts) waiting for startup check to succeed: " +
				refused},
		},
		{
			name: "that exits while it is checked tells its status", port: after(time.Hour), healthy: -1, took: 5 * time.Second,
			lrp:  models.DesiredLRP{Action: models.WrapAction(run("after 5s 7")), CheckDefinition: tcp()},
			want: Outcome{Code: 7, Reason: "APP: Exited with status 7"},
		},
		{
			name: "that made itself a daemon goes on", port: between(0, 70*time.Second), took: 90 * time.Second,
			lrp:  models.DesiredLRP{Action: models.WrapAction(run("after 5s 0")), CheckDefinition: tcp()},
			want: Outcome{Code: 1, Reason: "Instance became unhealthy: Liveness check unsuccessful: " + refused},
		},
		{
			name: "runs a monitor when there is no definition", healthy: -1, took: 2 * time.Second,
			lrp:  models.DesiredLRP{Action: forever, Monitor: models.WrapAction(run("exit 4")), StartTimeoutMs: 2000},
			want: Outcome{Code: 1, Reason: "Instance never healthy after 2s: APP: Exited with status 4"},
		},
		{
			name: "prefers the definition to the monitor", port: between(0, time.Second), took: 30 * time.Second,
			lrp:  models.DesiredLRP{Action: forever, Monitor: models.WrapAction(run("exit 4")), CheckDefinition: tcp()},
			want: Outcome{Code: 1, Reason: "Instance became unhealthy: Liveness check unsuccessful: " + refused},
		},
		{
			name: "falls with its sidecars", took: time.Second,
			lrp:  models.DesiredLRP{Action: forever, Sidecars: []*models.Sidecar{{Action: models.WrapAction(run("after 1s 8"))}}},
			want: Outcome{Code: 8, Reason: "APP: Exited with status 8"},
		},
	}
}

func TestLRP(t *testing.T) {
	for _, test := range lrpStories() {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWorld(t)
				if test.port != nil {
					w.dial = dialer(test.port)
				}
				begin := time.Now()
				got, healthy := runLRP(t, w, test.lrp)
				if got != test.want {
					t.Errorf("outcome is %+v, want %+v", got, test.want)
				}
				if healthy != test.healthy {
					t.Errorf("healthy after %s, want %s", healthy, test.healthy)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
			})
		})
	}
}

func TestCheckHTTP(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("we were sent elsewhere") }))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/ping", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "diego-healthcheck" || r.Header.Get("X-Forwarded-Proto") != "https" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	mux.HandleFunc("/sick", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ping", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()
	port := portOf(t, server.Listener.Addr().String())
	r := &Runner{Options: options(t, newFakeWorld(t))}
	for path, want := range map[string]string{
		"/ping": "", "ping": "", "/moved": "",
		"/sick": "failed to make HTTP request to '/sick' on port " + strconv.Itoa(int(port)) + ": received status code 503 in ",
		"/away": "received status code 302 in ",
		"/slow": "timed out after 0.20 seconds",
	} {
		err := r.checkHTTP(t.Context(), port, path, 200*time.Millisecond)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	server.Close()
	err := r.checkHTTP(t.Context(), port, "/ping", time.Second)
	if err == nil || !strings.HasSuffix(err.Error(), ": connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func portOf(t *testing.T, address string) uint32 {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
