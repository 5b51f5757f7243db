package egress

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// match is a condition on packets: in nft's language, and as the kernel wants it.
type match interface {
	String() string
	encode(e *encoder)
}

// action is what is done with packets.
type action interface {
	String() string
	encode(e *encoder)
}

// others are packets that a process outside of a range of host ids made. Packets without a maker do not fit.
type others driver.IDRange

func (m others) String() string { return fmt.Sprintf("meta skuid != %d-%d", m.Host, m.Host+m.Size-1) }

// established are packets of connections that are there, and the errors that belong to them.
type established struct{}

func (established) String() string { return "ct state established,related" }

// neighbours are the kernel's own messages of IPv6 that look for neighbours, routers and groups.
type neighbours struct{}

func (neighbours) String() string { return "meta l4proto ipv6-icmp ct state untracked" }

// loopback are packets that stay inside the network namespace.
type loopback struct{}

func (loopback) String() string { return `oif "lo"` }

type protocol struct{ name string }

var protocolNumbers = map[string]byte{
	driver.EgressTCP: unix.IPPROTO_TCP, driver.EgressUDP: unix.IPPROTO_UDP,
	driver.EgressICMP: unix.IPPROTO_ICMP, driver.EgressICMPv6: unix.IPPROTO_ICMPV6,
}

func (m protocol) String() string {
	if m.name == driver.EgressICMPv6 {
		return "meta l4proto ipv6-icmp"
	}
	return "meta l4proto " + m.name
}

// addresses are where packets go: ranges of one family, in order, not touching.
type addresses struct {
	ranges []driver.AddrRange
	v6     bool
}

func (m addresses) everywhere() bool {
	return len(m.ranges) == 1 && m.ranges[0].First.IsUnspecified() && !m.ranges[0].Last.Next().IsValid()
}

func (m addresses) String() string {
	name, family := "ip", "ipv4"
	if m.v6 {
		name, family = "ip6", "ipv6"
	}
	if m.everywhere() {
		return "meta nfproto " + family
	}
	texts := make([]string, len(m.ranges))
	for i, r := range m.ranges {
		texts[i] = addrText(r)
	}
	return name + " daddr " + oneOf(texts)
}

// addrText writes a range as nft does: as a network where it is one.
func addrText(r driver.AddrRange) string {
	if r.First == r.Last {
		return r.First.String()
	}
	for bits := range r.First.BitLen() {
		if p := netip.PrefixFrom(r.First, bits); p.Masked().Addr() == r.First && Network(p) == r {
			return p.String()
		}
	}
	return r.First.String() + "-" + r.Last.String()
}

// ports are destination ports, in order, not touching.
type ports struct{ ranges []driver.PortRange }

func (m ports) String() string {
	texts := make([]string, len(m.ranges))
	for i, r := range m.ranges {
		if texts[i] = fmt.Sprint(r.First); r.First != r.Last {
			texts[i] = fmt.Sprintf("%d-%d", r.First, r.Last)
		}
	}
	return "th dport " + oneOf(texts)
}

func oneOf(texts []string) string {
	if len(texts) == 1 {
		return texts[0]
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

type icmp struct {
	message driver.ICMPMessage
	v6      bool
}

func (m icmp) String() string {
	name := "icmp"
	if m.v6 {
		name = "icmpv6"
	}
	text := fmt.Sprintf("%s type %d", name, m.message.Type)
	if m.message.Code >= 0 {
		text += fmt.Sprintf(" %s code %d", name, m.message.Code)
	}
	return text
}

type verdict struct{}

// accept lets packets out.
var accept action = verdict{}

func (verdict) String() string { return "accept" }

// jump goes to another chain, for good or to come back.
type jump struct {
	to      string
	forGood bool
}

func (a jump) String() string {
	if a.forGood {
		return "goto " + a.to
	}
	return "jump " + a.to
}

// count counts packets, for operators who look.
type count struct{}

func (count) String() string { return "counter" }

// reset ends a TCP connection at once: its process sees "connection refused".
type reset struct{}

func (reset) String() string { return "reject with tcp reset" }

// prohibit answers with an ICMP error.
type prohibit struct{}

func (prohibit) String() string { return "reject with icmpx admin-prohibited" }

// writeLog writes to the kernel's log, in bounds.
type writeLog struct{ prefix string }

const logsPerSecond, logBurst = 10, 50

func (a writeLog) String() string {
	return fmt.Sprintf("limit rate %d/second burst %d packets counter log prefix %q level info", logsPerSecond, logBurst, a.prefix)
}

// String shows the table in nft's language.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.Name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.name == chainOutput {
			b.WriteString("\t\ttype filter hook output priority mangle; policy accept;\n")
		}
		for _, r := range c.rules {
			b.WriteString("\t\t")
			for _, m := range r.matches {
				b.WriteString(m.String() + " ")
			}
			b.WriteString(r.do.String() + "\n")
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func numbered(name string, n int) string { return fmt.Sprintf("%s-%d", name, n) }
