// Package egress holds a container to what it may reach: a driver.Egress becomes one nftables table in the network
// namespace that the container joins. The kernel is spoken to directly; no program of the host is needed.
//
//	Plan    says what the table is to be. Pure; String shows it in nft's own language
//	Apply   makes it, all of it or nothing, before the container's process 1 runs
//	Remove  takes it away; it also goes with its namespace
//
// Other tasks of an allocation share the namespace, and perhaps other drivers' (a Connect sidecar). So the table judges
// packets of sockets that a process with one of the container's own host ids made, and nobody else's. A packet that no process
// made (the kernel's own answers, what a closed socket still had to send) is let through as part of a connection that is
// already there, and judged like the container's otherwise: nothing gets out by having no owner. A container without a user
// namespace has no ids of its own; its rules hold for the whole network namespace. Containers that share ids share all
// their rules: a packet must be allowed by each.
//
// The table stands before address translation: what a process asks for is judged, not what a mesh makes of it.
package egress

import (
	"cmp"
	"net/netip"
	"slices"

	"drover/driver"
)

// Table is what the kernel is to hold for one container.
type Table struct {
	Name   string
	chains []*chain
}

// chain is a list of rules; the first one in a table is where packets come in.
type chain struct {
	name  string
	rules []rule
}

// rule is what is done with packets that fit all matches.
type rule struct {
	matches []match
	do      action
}

// Names of chains. Within is followed by a number.
const (
	chainOutput = "output"
	chainRefuse = "refuse"
	chainLog    = "log"
	chainWithin = "within"
)

// TableName is the name of a container's table.
func TableName(containerID string) string { return "drover-" + containerID }

// logNameLen is how much of a container's name stands in a line of the kernel's log.
const logNameLen = 28

// Plan says what table holds a container to its rules.
func Plan(containerID string, ids driver.IDRange, e driver.Egress) Table {
	output := &chain{name: chainOutput}
	t := Table{Name: TableName(containerID), chains: []*chain{output}}
	if ids.Size > 0 {
		output.add(accept, others(ids))
	}
	if !onlyAddresses(e) {
		output.add(accept, established{})
		output.add(accept, loopback{})
	}
	if len(e.Within) > 0 {
		output.add(accept, neighbours{})
	}
	lists := t.within(e.Within)
	output.allow(e.Pass, accept)
	output.allow(e.Deny, jump{chainRefuse, true})
	if len(lists) > 0 {
		output.add(jump{lists[0].name, true})
	}
	t.chains = append(t.chains, lists...)
	if len(e.Deny) > 0 || len(e.Within) > 0 {
		refuse := &chain{name: chainRefuse}
		refuse.add(count{})
		refuse.add(reset{}, protocol{driver.EgressTCP})
		refuse.add(prohibit{})
		t.chains = append(t.chains, refuse)
	}
	if logs(e) {
		name := containerID[:min(len(containerID), logNameLen)]
		t.chains = append(t.chains, &chain{name: chainLog, rules: []rule{{do: writeLog{name + " "}}}})
	}
	return t
}

// within makes a chain for each list. What is in a list goes on to the next one; the last one accepts.
func (t *Table) within(lists [][]driver.EgressRule) []*chain {
	chains := make([]*chain, len(lists))
	for i := range lists {
		chains[i] = &chain{name: numbered(chainWithin, i+1)}
	}
	for i, list := range lists {
		next := accept
		if i+1 < len(lists) {
			next = jump{chains[i+1].name, true}
		}
		chains[i].allow(list, next)
		chains[i].add(jump{chainRefuse, true})
	}
	return chains
}

// onlyAddresses says that nothing is closed but single addresses that never begin a connection themselves, so that there
// is no need to follow connections, which costs time.
func onlyAddresses(e driver.Egress) bool {
	return len(e.Within) == 0 && !slices.ContainsFunc(e.Deny, func(r driver.EgressRule) bool {
		return slices.ContainsFunc(r.To, func(a driver.AddrRange) bool { return !IsMetadata(a.First) || a.First != a.Last })
	})
}

func logs(e driver.Egress) bool {
	for _, list := range slices.Concat([][]driver.EgressRule{e.Pass, e.Deny}, e.Within) {
		if slices.ContainsFunc(list, func(r driver.EgressRule) bool { return r.Log }) {
			return true
		}
	}
	return false
}

func (c *chain) add(do action, matches ...match) { c.rules = append(c.rules, rule{matches, do}) }

// allow adds rules that do the same with whatever the list names.
func (c *chain) allow(list []driver.EgressRule, do action) {
	for _, r := range list {
		for _, matches := range fitting(r) {
			if r.Log {
				c.add(jump{chainLog, false}, matches...)
			}
			c.add(do, matches...)
		}
	}
}

// fitting returns what packets of a rule have in common, for each family that it names.
func fitting(r driver.EgressRule) [][]match {
	var all [][]match
	for _, v6 := range []bool{false, true} {
		to := familyOf(r.To, v6)
		if len(to) == 0 || v6 && r.Protocol == driver.EgressICMP || !v6 && r.Protocol == driver.EgressICMPv6 {
			continue
		}
		matches := []match{addresses{to, v6}}
		if r.Protocol != driver.EgressAll {
			matches = append(matches, protocol{r.Protocol})
		}
		if len(r.Ports) > 0 {
			matches = append(matches, ports{mergePorts(r.Ports)})
		}
		if r.ICMP != nil && r.ICMP.Type >= 0 {
			matches = append(matches, icmp{*r.ICMP, v6})
		}
		all = append(all, matches)
	}
	return all
}

// familyOf returns the ranges of a family in order, those that touch made one: the kernel's sets know no overlap.
func familyOf(list []driver.AddrRange, v6 bool) []driver.AddrRange {
	var found []driver.AddrRange
	for _, r := range list {
		if r.First.Is6() == v6 {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b driver.AddrRange) int { return a.First.Compare(b.First) })
	var merged []driver.AddrRange
	for _, r := range found {
		if n := len(merged); n > 0 {
			end := merged[n-1].Last
			if next := end.Next(); !next.IsValid() || r.First.Compare(next) <= 0 {
				if end.Less(r.Last) {
					merged[n-1].Last = r.Last
				}
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

func mergePorts(list []driver.PortRange) []driver.PortRange {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b driver.PortRange) int { return cmp.Compare(a.First, b.First) })
	var merged []driver.PortRange
	for _, r := range sorted {
		if n := len(merged); n > 0 && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// metadata are the addresses at which clouds tell an instance its own credentials: the common one of most clouds, Amazon's
// for containers, and their forms in IPv6 (Amazon's, Google's, OpenStack's).
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("169.254.170.23"),
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd00:ec2::23"), netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("fe80::a9fe:a9fe"),
}

// IsMetadata says whether a cloud's credentials are told at an address.
func IsMetadata(a netip.Addr) bool { return slices.Contains(metadata, a) }

// Metadata returns the rule that names all of these addresses.
func Metadata() driver.EgressRule {
	rule := driver.EgressRule{Protocol: driver.EgressAll}
	for _, a := range metadata {
		rule.To = append(rule.To, driver.AddrRange{First: a, Last: a})
	}
	return rule
}
