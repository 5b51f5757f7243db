package task

import (
	"drover/driver"
	"drover/driver/egress"
)

// NetworkConfig is an operator's part of: Egress rules, names and resolvers.
type NetworkConfig struct {
	Egress EgressConfig
}

func (c NetworkConfig) validate() error { return c.Egress.validate() }

// NetworkWish is a job's part of the same.
type NetworkWish struct {
	// Egress is all that the task may reach, when there is any.
	Egress []egress.Text
}

func (w NetworkWish) validate(node Config) error { return validateEgress(w.Egress, node) }

// applyNetwork puts into the container what it may reach.
func (f facts) applyNetwork(c *driver.Container) error { return f.applyEgress(c) }
