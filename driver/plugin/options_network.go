package plugin

import "drover/driver/task"

// networkNodeOptions: what tasks may reach.
func networkNodeOptions() []Option { return []Option{egressNodeOption()} }

type networkNode struct {
	Egress egressNode `codec:"egress"`
}

func (c networkNode) into(n *task.Config) error { return c.Egress.into(n) }

// networkOptions: names and rules of the network.
func networkOptions() []Option {
	return []Option{
		{Name: "ports", Kind: Strings, Doc: "labels of the group's ports that the task listens on, as in the docker driver; Nomad maps them, they are only checked here"},
		egressOption(),
	}
}

type networkTask struct {
	Ports  []string     `codec:"ports"`
	Egress []egressRule `codec:"egress"`
}

func (c networkTask) into(w *task.Wish) error {
	w.Network.Ports = c.Ports
	w.Network.Egress = egressTexts(c.Egress)
	return nil
}
