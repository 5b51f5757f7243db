package plugin

import "drover/driver/task"

// networkNodeOptions: what tasks may reach.
func networkNodeOptions() []Option { return nil }

type networkNode struct{}

func (c networkNode) into(*task.Config) error { return nil }

// networkOptions: names and rules of the network.
func networkOptions() []Option { return nil }

type networkTask struct{}

func (c networkTask) into(*task.Wish) error { return nil }
