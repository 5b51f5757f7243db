package plugin

import "drover/driver/task"

// networkNodeOptions: what tasks may reach.
func networkNodeOptions() []Option { return []Option{egressNodeOption()} }

type networkNode struct {
	Egress egressNode `codec:"egress"`
}

func (c networkNode) into(n *task.Config) error { return c.Egress.into(n) }

// networkOptions: names and rules of the network.
func networkOptions() []Option { return []Option{egressOption()} }

type networkTask struct {
	Egress []egressRule `codec:"egress"`
}

func (c networkTask) into(w *task.Wish) error {
	w.Network.Egress = egressTexts(c.Egress)
	return nil
}
