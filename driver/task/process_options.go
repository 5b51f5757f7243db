package task

import "drover/driver"

// ProcessConfig is an operator's part of: What a task may say of its process: init, tty, extra groups, labels, logs.
type ProcessConfig struct{}

func (c ProcessConfig) validate() error { return nil }

// ProcessWish is a job's part of the same.
type ProcessWish struct{}

func (w ProcessWish) validate(Config) error { return nil }

// applyProcess puts into the container how its process 1 runs.
func (f facts) applyProcess(*driver.Container) error { return nil }
