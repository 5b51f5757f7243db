package task

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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
	// Ports are labels of ports that the group's network must have.
	Ports []string
	// Egress is all that the task may reach, when there is any.
	Egress []egress.Text
}

func (w NetworkWish) validate(node Config) error { return validateEgress(w.Egress, node) }

// checkPorts names the ports that the task counts on and that its group has not.
func (r Request) checkPorts() error {
	var has []string
	for _, p := range r.Ports {
		has = append(has, p.Label)
	}
	for _, label := range r.Wish.Network.Ports {
		if !slices.Contains(has, label) {
			return fmt.Errorf("ports: the group's network block has no port %q; it has: %s", label, cmp.Or(strings.Join(has, ", "), "none"))
		}
	}
	return nil
}

// applyNetwork puts into the container what it may reach.
func (f facts) applyNetwork(c *driver.Container) error { return f.applyEgress(c) }
