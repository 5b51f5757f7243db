package task

import "drover/driver"

// StorageConfig is an operator's part of: Mounts, devices, and whose the files are.
type StorageConfig struct{}

func (c StorageConfig) validate() error { return nil }

// StorageWish is a job's part of the same.
type StorageWish struct{}

func (w StorageWish) validate(Config) error { return nil }

// applyStorage puts into the container which files it sees.
func (f facts) applyStorage(*driver.Container) error { return nil }
