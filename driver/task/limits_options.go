package task

import "drover/driver"

// LimitConfig is an operator's part of: Limits beside those of the resources block.
type LimitConfig struct{}

func (c LimitConfig) validate() error { return nil }

// LimitWish is a job's part of the same.
type LimitWish struct{}

func (w LimitWish) validate(Config) error { return nil }

// applyLimit puts into the container how much it may have.
func (f facts) applyLimit(*driver.Container) error { return nil }
