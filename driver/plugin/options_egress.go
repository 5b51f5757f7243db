package plugin

import (
	"fmt"

	"drover/driver/egress"
	"drover/driver/task"
)

// egressNodeOption: what an operator lets tasks reach.
func egressNodeOption() Option {
	return Option{Name: "egress", Kind: Block, Doc: "what tasks in network namespaces of their own may reach", Options: []Option{
		{Name: "default", Kind: String, Default: "open", Doc: "`open`, or `closed`: nothing may be reached but name servers and what `allow` names, whatever jobs say"},
		{Name: "block_metadata", Kind: Bool, Default: "true", Doc: "close the addresses at which clouds tell a node's credentials (169.254.169.254 and its kind), save for DNS where resolv.conf names one of them"},
		{Name: "deny", Kind: Blocks, Doc: "what no task may reach, whatever else allows it; `node` is a destination that stands for this node's own addresses", Options: egressRuleOptions()},
		{Name: "allow", Kind: Blocks, Doc: "what may be reached when `default` is `closed`", Options: egressRuleOptions()},
		{Name: "max_rules", Kind: Number, Default: fmt.Sprint(task.DefaultMaxEgressRules), Doc: "rules that a task may have"},
		{Name: "allow_host_network", Kind: Bool, Default: "false", Doc: "let tasks run that have rules but share the node's network, or may remove them (`privileged`), where rules do not hold; they are refused otherwise"},
	}}
}

// egressOption: what a task wants to be held to.
func egressOption() Option {
	return Option{
		Name: "egress", Kind: Blocks, Options: egressRuleOptions(),
		Doc: "what the task may reach: with such blocks only that, its name servers and itself. Needs a group network with mode bridge or cni",
	}
}

func egressRuleOptions() []Option {
	return []Option{
		{Name: "protocol", Kind: String, Doc: "`tcp`, `udp`, `icmp`, `icmpv6` or `all`"},
		{Name: "destinations", Kind: Strings, Doc: "addresses, networks (`10.0.0.0/8`), ranges (`192.0.2.1-192.0.2.9`)"},
		{Name: "ports", Kind: Strings, Default: "all", Doc: "of tcp and udp: ports and ranges (`8000-8999`)"},
		{Name: "icmp_type", Kind: Number, Default: "-1", Doc: "-1 is any"},
		{Name: "icmp_code", Kind: Number, Default: "-1", Doc: "-1 is any"},
		{Name: "log", Kind: Bool, Default: "false", Doc: "a line in the kernel's log for each new connection, at most 10 in a second; needs sysctl `net.netfilter.nf_log_all_netns` = 1"},
	}
}

type egressNode struct {
	Default          string       `codec:"default"`
	BlockMetadata    *bool        `codec:"block_metadata"`
	Deny             []egressRule `codec:"deny"`
	Allow            []egressRule `codec:"allow"`
	MaxRules         int          `codec:"max_rules"`
	AllowHostNetwork bool         `codec:"allow_host_network"`
}

type egressRule struct {
	Protocol     string   `codec:"protocol"`
	Destinations []string `codec:"destinations"`
	Ports        []string `codec:"ports"`
	ICMPType     *int64   `codec:"icmp_type"`
	ICMPCode     *int64   `codec:"icmp_code"`
	Log          bool     `codec:"log"`
}

func (c egressNode) into(n *task.Config) error {
	if c.Default != "" && c.Default != "open" && c.Default != "closed" {
		return fmt.Errorf("egress.default: %q is neither \"open\" nor \"closed\"", c.Default)
	}
	n.Network.Egress = task.EgressConfig{
		Closed: c.Default == "closed", BlockMetadata: c.BlockMetadata == nil || *c.BlockMetadata,
		Deny: egressTexts(c.Deny), Allow: egressTexts(c.Allow),
		MaxRules: or(c.MaxRules, task.DefaultMaxEgressRules), AllowHostNetwork: c.AllowHostNetwork,
	}
	return nil
}

func egressTexts(rules []egressRule) []egress.Text {
	var texts []egress.Text
	for _, r := range rules {
		texts = append(texts, egress.Text{
			Protocol: r.Protocol, Destinations: r.Destinations, Ports: r.Ports, ICMPType: r.ICMPType, ICMPCode: r.ICMPCode, Log: r.Log,
		})
	}
	return texts
}
