package main

import (
	"fmt"
	"time"

	"drover/stager/check"
)

// checkFlags is healthcheck's flags.
type checkFlags struct {
	check                           check.Check
	network                         string
	startup, startupTimeout         time.Duration
	liveness, readiness, untilReady time.Duration
}

// healthcheck asks once, or, with an interval, watches.
func (c *call) healthcheck() int {
	var f checkFlags
	set := c.newFlags()
	set.StringVar(&f.network, "network", "tcp", "only tcp")
	set.StringVar(&f.check.Port, "port", "8080", "port to ask")
	set.StringVar(&f.check.URI, "uri", "", "path to GET; without, a connection suffices")
	set.DurationVar(&f.check.Timeout, "timeout", time.Second, "time for one answer")
	set.DurationVar(&f.startup, "startup-interval", 0, "ask at this interval until healthy")
	set.DurationVar(&f.startupTimeout, "startup-timeout", time.Minute, "time to become healthy; 0 is no limit")
	set.DurationVar(&f.liveness, "liveness-interval", 0, "ask at this interval until unhealthy")
	set.DurationVar(&f.readiness, "readiness-interval", 0, "ask at this interval until not ready")
	set.DurationVar(&f.untilReady, "until-ready-interval", 0, "ask at this interval until ready, without limit")
	err := c.parse(set, c.args)
	if err == nil && f.network != "tcp" {
		err = fmt.Errorf("%s: -network=%s is not supported by this release, only tcp", c.name, f.network)
	}
	if err != nil {
		return c.fail(err)
	}
	if err := c.watch(&f); err != nil {
		_, _ = fmt.Fprintln(c.stdout, err) // Diego shows a check's standard output as the reason.
		return check.CodeOf(err)
	}
	_, _ = fmt.Fprintln(c.stdout, "healthcheck passed")
	return check.ExitHealthy
}

func (c *call) watch(f *checkFlags) error {
	address, err := check.Address()
	if err != nil {
		return err
	}
	switch {
	case f.startup > 0:
		return f.check.UntilHealthy(c.ctx, address, f.startup, f.startupTimeout)
	case f.untilReady > 0:
		return f.check.UntilHealthy(c.ctx, address, f.untilReady, 0)
	case f.liveness > 0:
		return f.check.WhileHealthy(c.ctx, address, f.liveness, check.Liveness)
	case f.readiness > 0:
		return f.check.WhileHealthy(c.ctx, address, f.readiness, check.Readiness)
	default:
		return f.check.Run(c.ctx, address)
	}
}
