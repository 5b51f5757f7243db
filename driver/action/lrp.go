package action

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"code.cloudfoundry.org/bbs/models"
)

// How often an instance is checked. Diego asks every 2 s until it is healthy; asking more often at first makes quick
// apps quick.
const (
	eagerInterval = 500 * time.Millisecond
	eagerTime     = 10 * time.Second
	startInterval = 2 * time.Second
	aliveInterval = 30 * time.Second
	checkTimeout  = time.Second
)

// check looks at an instance once.
type check func(ctx context.Context) error

// checks are how an LRP wants to be looked at.
type checks struct {
	check check
	// every is the time between looks at a healthy instance.
	every time.Duration
	// builtin says that the texts are those of Diego's health check program.
	builtin bool
}

// lrp runs setup, and then the action and the checks side by side.
func (r *Runner) lrp(ctx context.Context, lrp *models.DesiredLRP, healthy func()) error {
	r.source = lrp.LogSource
	if lrp.Setup != nil {
		if err := r.run(ctx, lrp.Setup); err != nil {
			return err
		}
	}
	main := func(ctx context.Context) error { return r.main(ctx, lrp) }
	looks := r.checks(lrp)
	if looks == nil {
		healthy()
		if err := main(ctx); err != nil {
			return err
		}
		return &Failure{Text: prefix(sourceOf(lrp), "Exited with status 0")}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The first error counts. That main ends without one says that it has made itself a daemon: only the checks can
	// tell from then on.
	var first error
	for err := range all(ctx, []step{main, func(ctx context.Context) error {
		return r.monitor(ctx, *looks, startTimeout(lrp), healthy)
	}}) {
		if first == nil && err != nil {
			first = err
			cancel()
		}
	}
	return first
}

// main runs the LRP's action, with its sidecars when it has any.
func (r *Runner) main(ctx context.Context, lrp *models.DesiredLRP) error {
	if len(lrp.Sidecars) == 0 {
		return r.run(ctx, lrp.Action)
	}
	actions := []*models.Action{lrp.Action}
	for _, sidecar := range lrp.Sidecars {
		actions = append(actions, sidecar.Action)
	}
	return codependent(ctx, r.steps(actions))
}

func sourceOf(lrp *models.DesiredLRP) string {
	if run := lrp.Action.GetRunAction(); run != nil && run.LogSource != "" {
		return run.LogSource
	}
	return lrp.LogSource
}

func startTimeout(lrp *models.DesiredLRP) time.Duration {
	if lrp.StartTimeoutMs > 0 {
		return time.Duration(lrp.StartTimeoutMs) * time.Millisecond
	}
	return time.Duration(lrp.DeprecatedStartTimeoutS) * time.Second
}

// checks prefers the check definition over the monitor action; nil means that there is neither.
func (r *Runner) checks(lrp *models.DesiredLRP) *checks {
	if definition := lrp.CheckDefinition; definition != nil && len(definition.Checks) > 0 {
		every := aliveInterval
		var all []check
		for _, c := range definition.Checks {
			one, interval := r.builtin(c)
			all = append(all, one)
			if interval > 0 {
				every = min(every, interval)
			}
		}
		return &checks{check: together(all), every: every, builtin: true}
	}
	if valueOf(lrp.Monitor) == nil {
		return nil
	}
	return &checks{every: aliveInterval, check: func(ctx context.Context) error {
		return r.run(context.WithValue(ctx, checkKey{}, true), lrp.Monitor)
	}}
}

func together(list []check) check {
	var steps []step
	for _, c := range list {
		steps = append(steps, step(c))
	}
	return func(ctx context.Context) error { return parallel(ctx, steps) }
}

// monitor looks until the instance is healthy, and from then on whether it stays so. It returns when it is not, or
// when the context ends.
func (r *Runner) monitor(ctx context.Context, c checks, limit time.Duration, healthy func()) error {
	if err := awaitHealthy(ctx, c, limit); err != nil {
		return err
	}
	healthy()
	for {
		if err := wait(ctx, c.every); err != nil {
			return err
		}
		err := c.check(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return becameUnhealthy(c, err)
		}
	}
}

// awaitHealthy looks until the instance is healthy, at most until the limit, when there is one.
func awaitHealthy(ctx context.Context, c checks, limit time.Duration) error {
	begin := time.Now()
	for n := 1; ; n++ {
		err := c.check(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			return nil
		}
		took := time.Since(begin).Round(time.Millisecond)
		if limit > 0 && took >= limit {
			return neverHealthy(c, err, took, limit, n)
		}
		interval := startInterval
		if took < eagerTime {
			interval = eagerInterval
		}
		if limit > 0 {
			interval = min(interval, max(limit-took, time.Millisecond))
		}
		if err := wait(ctx, interval); err != nil {
			return err
		}
	}
}

func neverHealthy(c checks, err error, took, limit time.Duration, n int) error {
	text := err.Error()
	if c.builtin {
		text = fmt.Sprintf("Timed out after %s (%d attempts) waiting for startup check to succeed: %s", limit, n, text)
	}
	return &Failure{Text: fmt.Sprintf("Instance never healthy after %s: %s", took, text), Code: 1}
}

func becameUnhealthy(c checks, err error) error {
	text := err.Error()
	if c.builtin {
		text = "Liveness check unsuccessful: " + text
	}
	return &Failure{Text: "Instance became unhealthy: " + text, Code: 1}
}

// builtin makes a check of a definition, and tells how often it wants to be made.
func (r *Runner) builtin(c *models.Check) (check, time.Duration) {
	switch {
	case c.TcpCheck != nil:
		tcp := c.TcpCheck
		limit := millis(tcp.ConnectTimeoutMs, checkTimeout)
		return func(ctx context.Context) error { return r.checkTCP(ctx, tcp.Port, limit) }, millis(tcp.IntervalMs, 0)
	case c.HttpCheck != nil:
		web := c.HttpCheck
		limit := millis(web.RequestTimeoutMs, checkTimeout)
		return func(ctx context.Context) error { return r.checkHTTP(ctx, web.Port, web.Path, limit) }, millis(web.IntervalMs, 0)
	}
	return func(context.Context) error { return errors.New("the check definition holds an empty check") }, 0
}

func millis(n uint64, none time.Duration) time.Duration {
	if n == 0 {
		return none
	}
	return time.Duration(n) * time.Millisecond //nolint:gosec // milliseconds of a check
}

func (r *Runner) checkTCP(ctx context.Context, port uint32, limit time.Duration) error {
	ip, err := r.World.Address()
	if err != nil {
		return fmt.Errorf("failure to get interfaces: %w", err)
	}
	address := net.JoinHostPort(ip, strconv.FormatUint(uint64(port), 10))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := r.World.Dial(ctx, address)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("failed to make TCP connection to %s: timed out after %.2f seconds", address, limit.Seconds())
		}
		return fmt.Errorf("failed to make TCP connection to %s: %w", address, err)
	}
	return conn.Close()
}

func (r *Runner) checkHTTP(ctx context.Context, port uint32, path string, limit time.Duration) error {
	ip, err := r.World.Address()
	if err != nil {
		return fmt.Errorf("failure to get interfaces: %w", err)
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	status, err := r.getStatus(ctx, net.JoinHostPort(ip, strconv.FormatUint(uint64(port), 10)), path)
	detail := ""
	switch {
	case err == nil && status == http.StatusOK:
		return nil
	case err == nil:
		detail = fmt.Sprintf("received status code %d in %s", status, time.Since(begin).Round(time.Millisecond))
	case ctx.Err() != nil:
		detail = fmt.Sprintf("timed out after %.2f seconds", limit.Seconds())
	case errors.Is(err, syscall.ECONNREFUSED):
		detail = "connection refused"
	default:
		detail = err.Error()
	}
	return fmt.Errorf("failed to make HTTP request to '%s' on port %d: %s", path, port, detail)
}

// getStatus follows redirects on the same host only: we look from outside the container, and an app must not send us
// anywhere.
func (r *Runner) getStatus(ctx context.Context, host, path string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return 0, bare(err)
	}
	request.Header.Set("User-Agent", "diego-healthcheck")
	request.Header.Set("X-Forwarded-Proto", "https")
	transport := &http.Transport{
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return r.World.Dial(ctx, address)
		},
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Host != host || next.URL.Scheme != "http" || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		return 0, bare(err)
	}
	return response.StatusCode, response.Body.Close()
}

// wait waits a while, or for the context's end.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
