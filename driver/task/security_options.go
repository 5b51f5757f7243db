package task

import "drover/driver"

// SecurityConfig is an operator's part of: What a task may do: capabilities, system calls, namespaces that it shares.
type SecurityConfig struct{}

func (c SecurityConfig) validate() error { return nil }

// SecurityWish is a job's part of the same.
type SecurityWish struct{}

func (w SecurityWish) validate(Config) error { return nil }

// applySecurity puts into the container what it may do.
func (f facts) applySecurity(*driver.Container) error { return nil }
