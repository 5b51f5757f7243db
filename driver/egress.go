package driver

import "net/netip"

// Egress says what a container may reach. It needs a network namespace of its own. A connection that is already there
// goes on, and loopback stays open; everything else is judged by Pass, Deny and Within in this order.
type Egress struct {
	// Pass goes out whatever Deny says.
	Pass []EgressRule `json:"pass,omitempty"`
	// Deny is refused whatever the rest says.
	Deny []EgressRule `json:"deny,omitempty"`
	// Within are lists of what is allowed, the operator's and the job's: what goes out must be in each of them. An empty
	// list allows nothing; no list at all allows everything.
	Within [][]EgressRule `json:"within,omitempty"`
}

// Protocols of an EgressRule.
const (
	EgressTCP    = "tcp"
	EgressUDP    = "udp"
	EgressICMP   = "icmp"
	EgressICMPv6 = "icmpv6"
	EgressAll    = "all"
)

// EgressRule names what may be reached, or not.
type EgressRule struct {
	// Protocol is one of the constants above.
	Protocol string `json:"protocol"`
	// To are addresses of one or both families.
	To []AddrRange `json:"to"`
	// Ports are those of tcp and udp; empty means every one.
	Ports []PortRange `json:"ports,omitempty"`
	// ICMP narrows icmp and icmpv6; nil means every message.
	ICMP *ICMPMessage `json:"icmp,omitempty"`
	// Log writes a line to the kernel's log for each new connection.
	Log bool `json:"log,omitempty"`
}

// AddrRange are the addresses from First to Last, both included, of one family.
type AddrRange struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// PortRange are the ports from First to Last, both included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// ICMPMessage is a kind of ICMP message; -1 means any.
type ICMPMessage struct {
	Type int `json:"type"`
	Code int `json:"code"`
}
