package task

import "drover/driver"

// DiskConfig is an operator's part of: Disk quota.
type DiskConfig struct{}

func (c DiskConfig) validate() error { return nil }

// DiskWish is a job's part of the same.
type DiskWish struct{}

func (w DiskWish) validate(Config) error { return nil }

// applyDisk puts into the container how much it may write.
func (f facts) applyDisk(*driver.Container) error { return nil }
