package task

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"drover/driver"
	"drover/driver/egress"
)

// EgressConfig is what an operator lets tasks reach.
type EgressConfig struct {
	// Closed says that nothing may be reached but what Allow names.
	Closed bool
	// BlockMetadata closes the addresses at which clouds tell a node's credentials.
	BlockMetadata bool
	// AllowHostNetwork lets tasks run that have rules and share the node's network, where rules do not hold.
	AllowHostNetwork bool
	Allow, Deny      []egress.Text
	// MaxRules is how many rules a task may have.
	MaxRules int
}

// DefaultMaxEgressRules is how many rules a task may have where the operator says nothing: what security groups of a large
// platform add up to.
const DefaultMaxEgressRules = 1024

// nodeName is the word that stands for the node's own addresses in an operator's rules.
const nodeName = "node"

func (c EgressConfig) validate() error {
	names := egress.Names{nodeName: nil}
	_, allow := readRules("egress.allow", c.Allow, names)
	_, deny := readRules("egress.deny", c.Deny, names)
	errs := []error{allow, deny}
	if len(c.Allow) > 0 && !c.Closed {
		errs = append(errs, errors.New(`egress.allow: is for egress.default = "closed"; everything is allowed already`))
	}
	if c.MaxRules < 0 {
		errs = append(errs, fmt.Errorf("egress.max_rules: %d must be at least 1", c.MaxRules))
	}
	return errors.Join(errs...)
}

// limits says whether the operator's rules hold everywhere, so that no task may evade them.
func (c EgressConfig) limits() bool { return c.Closed || len(c.Deny) > 0 }

// validateEgress checks a job's rules.
func validateEgress(rules []egress.Text, node Config) error {
	limit := cmp.Or(node.Network.Egress.MaxRules, DefaultMaxEgressRules)
	if len(rules) > limit {
		return fmt.Errorf("egress: %d rules; this node's operator allows %d (plugin option egress.max_rules)", len(rules), limit)
	}
	_, err := readRules("egress", rules, nil)
	return err
}

func readRules(field string, texts []egress.Text, names egress.Names) ([]driver.EgressRule, error) {
	rules := make([]driver.EgressRule, len(texts))
	var errs []error
	for i, text := range texts {
		var err error
		if rules[i], err = text.Rule(names); err != nil {
			errs = append(errs, fmt.Errorf("%s[%d].%w", field, i, err))
		}
	}
	return rules, errors.Join(errs...)
}

// applyEgress puts into the container what it may reach.
func (f facts) applyEgress(c *driver.Container) error {
	node := f.node.Network.Egress
	rules, narrowed, err := f.egressRules()
	if err != nil {
		return err
	}
	if f.req.NetNS == "" {
		if (len(rules) > 0 || node.limits()) && !node.AllowHostNetwork {
			return f.hostNetworkRefused(len(rules) > 0)
		}
		return nil
	}
	if why := evades(c); why != "" && (len(rules) > 0 || node.limits()) && !node.AllowHostNetwork {
		return f.evasionRefused(len(rules) > 0, why)
	}
	servers := nameServers(c.ResolvConf)
	e := driver.Egress{}
	if node.BlockMetadata {
		e.Pass = toNameServers(servers, egress.IsMetadata)
		e.Deny = append(e.Deny, egress.Metadata())
	}
	names := egress.Names{nodeName: f.nodeAddrs}
	deny, err1 := readRules("egress.deny", node.Deny, names)
	allow, err2 := readRules("egress.allow", node.Allow, names)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	e.Deny = append(e.Deny, deny...)
	everyServer := toNameServers(servers, func(netip.Addr) bool { return true })
	if node.Closed {
		e.Within = append(e.Within, append(allow, everyServer...))
	}
	if narrowed {
		if f.info == nil {
			rules = append(rules, everyServer...)
		}
		e.Within = append(e.Within, rules)
	}
	if len(e.Deny)+len(e.Within) > 0 {
		c.Egress = &e
	}
	return nil
}

// egressRules are the task's own, and whether there is nothing else that it may reach. Work of a platform has exactly
// the platform's rules, and when there are none it reaches nothing.
func (f facts) egressRules() (rules []driver.EgressRule, narrowed bool, err error) {
	if f.info != nil {
		limit := cmp.Or(f.node.Network.Egress.MaxRules, DefaultMaxEgressRules)
		if len(f.def.egress) > limit {
			return nil, true, fmt.Errorf("egress_rules: %d rules; this node's operator allows %d (plugin option egress.max_rules)", len(f.def.egress), limit)
		}
		rules, err = egress.FromDiego(f.def.egress)
		return rules, true, err
	}
	wish := f.req.Wish.Network.Egress
	rules, err = readRules("egress", wish, nil)
	if err != nil || f.kernelLogs {
		return rules, len(wish) > 0, err
	}
	for i, rule := range rules {
		if rule.Log {
			return nil, true, fmt.Errorf("egress[%d].log: this node's kernel logs nothing of network namespaces; its operator can set sysctl %s = 1", i, logsSysctl)
		}
	}
	return rules, len(wish) > 0, nil
}

// evades says by what a container's root could take its rules away, or pass below them: only a user namespace of its own
// keeps its capabilities from counting in a network namespace that is the host's.
func evades(c *driver.Container) string {
	s := c.Security
	added := slices.Concat(s.CapAdd, s.CapAddAny)
	switch {
	case s.Privileged:
		return "privileged"
	case c.IDs.Size > 0:
		return ""
	case slices.Contains(added, "CAP_NET_ADMIN"), slices.Contains(added, "CAP_SYS_ADMIN"), slices.Contains(added, "CAP_SYS_PTRACE"),
		slices.Contains(added, "CAP_SYS_MODULE"):
		return `cap_add with userns = "host"`
	case !slices.Contains(s.CapDrop, "CAP_NET_RAW") && (c.Seccomp == modeOff || len(s.Profile) > 0):
		return `seccomp and the capability NET_RAW with userns = "host"`
	}
	return ""
}

func (f facts) evasionRefused(own bool, why string) error {
	return fmt.Errorf("%s: rules cannot hold a task with %s, which could remove them; leave one of the two out, or let such tasks run "+
		"unbound with the plugin option egress.allow_host_network", f.egressField(own), why)
}

// egressField names where the rules come from.
func (f facts) egressField(own bool) string {
	switch {
	case own && f.info != nil:
		return "egress_rules"
	case own:
		return "egress"
	}
	return "plugin option egress"
}

func (f facts) hostNetworkRefused(own bool) error {
	return fmt.Errorf("%s: rules need a network namespace of the task's own; give the group a network block with mode \"bridge\" or "+
		"\"cni/NAME\", or let such tasks run unbound with the plugin option egress.allow_host_network", f.egressField(own))
}

// toNameServers returns rules for those of a container's name servers that are chosen.
func toNameServers(servers []netip.Addr, chosen func(netip.Addr) bool) []driver.EgressRule {
	var to []driver.AddrRange
	for _, server := range servers {
		if chosen(server) {
			to = append(to, driver.AddrRange{First: server, Last: server})
		}
	}
	if len(to) == 0 {
		return nil
	}
	port := []driver.PortRange{{First: 53, Last: 53}}
	return []driver.EgressRule{{Protocol: driver.EgressUDP, To: to, Ports: port}, {Protocol: driver.EgressTCP, To: to, Ports: port}}
}

// nameServers lists those of a resolv.conf; a program uses the first three.
func nameServers(conf string) []netip.Addr {
	var found []netip.Addr
	for line := range strings.Lines(conf) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(found) == maxNameServers {
			continue
		}
		if server, err := netip.ParseAddr(fields[1]); err == nil {
			found = append(found, server.Unmap().WithZone(""))
		}
	}
	return found
}

const maxNameServers = 3

// logsSysctl lets rules in network namespaces write to the kernel's log.
const logsSysctl = "net.netfilter.nf_log_all_netns"

// lookForEgress finds what rules need to know of the node.
func (s *start) lookForEgress() error {
	s.facts.kernelLogs = strings.TrimSpace(readSmall("/proc/sys/"+strings.ReplaceAll(logsSysctl, ".", "/"))) == "1"
	if s.facts.info != nil && !s.facts.kernelLogs {
		for _, rule := range s.facts.def.egress {
			if rule.Log {
				s.m.warnIgnored(s.facts.info.GUID, []string{"egress_rules.log (needs sysctl " + logsSysctl + " = 1)"})
				break
			}
		}
	}
	config := s.m.node.Network.Egress
	if !namesNode(config.Allow) && !namesNode(config.Deny) {
		return nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the node's addresses: %w", err)
	}
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(ipNet.IP); ok && !ip.IsLoopback() {
			s.facts.nodeAddrs = append(s.facts.nodeAddrs, driver.AddrRange{First: ip.Unmap(), Last: ip.Unmap()})
		}
	}
	return nil
}

func namesNode(rules []egress.Text) bool {
	for _, rule := range rules {
		for _, list := range rule.Destinations {
			for part := range strings.SplitSeq(list, ",") {
				if strings.TrimSpace(part) == nodeName {
					return true
				}
			}
		}
	}
	return false
}
