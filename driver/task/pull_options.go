package task

import "drover/driver"

// PullConfig is an operator's part of: Which image is taken from where, and with whose credentials.
type PullConfig struct{}

func (c PullConfig) validate() error { return nil }

// PullWish is a job's part of the same.
type PullWish struct{}

func (w PullWish) validate(Config) error { return nil }

// applyPull puts into the container how its root file system is got.
func (f facts) applyPull(*driver.Container) error { return nil }
