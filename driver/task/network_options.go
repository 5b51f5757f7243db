package task

import "drover/driver"

// NetworkConfig is an operator's part of: Egress rules, names and resolvers.
type NetworkConfig struct{}

func (c NetworkConfig) validate() error { return nil }

// NetworkWish is a job's part of the same.
type NetworkWish struct{}

func (w NetworkWish) validate(Config) error { return nil }

// applyNetwork puts into the container what it may reach.
func (f facts) applyNetwork(*driver.Container) error { return nil }
