package egress

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// Text is a rule as people write it.
type Text struct {
	Protocol string
	// Destinations are addresses, networks (10.0.0.0/8), ranges (10.0.0.1-10.0.0.9), names of Names, or lists of these
	// with commas.
	Destinations []string
	// Ports are numbers, ranges (8000-8999), or lists of these with commas.
	Ports []string
	// ICMPType and ICMPCode are nil or -1 for any.
	ICMPType, ICMPCode *int64
	Log                bool
}

// Names are words that stand for addresses.
type Names map[string][]driver.AddrRange

// maxRanges bounds the addresses and ports of one rule.
const maxRanges = 4096

// Rule reads a rule. Errors begin with the field's name.
func (t Text) Rule(names Names) (driver.EgressRule, error) {
	rule := driver.EgressRule{Protocol: t.Protocol, Log: t.Log}
	var errs [3]error
	rule.To, errs[0] = parseDestinations(t.Destinations, names)
	rule.Ports, errs[1] = parsePorts(t.Ports)
	rule.ICMP, errs[2] = parseICMP(t.ICMPType, t.ICMPCode)
	if err := errors.Join(errs[:]...); err != nil {
		return driver.EgressRule{}, err
	}
	return rule, fits(rule)
}

// fits says whether the parts of a rule go together.
func fits(r driver.EgressRule) error {
	switch r.Protocol {
	case driver.EgressTCP, driver.EgressUDP:
		if r.ICMP != nil {
			return fmt.Errorf("icmp_type and icmp_code: not allowed with protocol %s", r.Protocol)
		}
	case driver.EgressICMP, driver.EgressICMPv6:
		if len(r.Ports) > 0 {
			return fmt.Errorf("ports: not allowed with protocol %s, which has none", r.Protocol)
		}
	case driver.EgressAll:
		if r.ICMP != nil || len(r.Ports) > 0 {
			return errors.New("ports, icmp_type and icmp_code: not allowed with protocol all")
		}
	default:
		return fmt.Errorf("protocol: %q is none of tcp, udp, icmp, icmpv6 and all", r.Protocol)
	}
	return nil
}

func parseDestinations(list []string, names Names) ([]driver.AddrRange, error) {
	var all []driver.AddrRange
	given := 0
	for _, text := range list {
		for part := range strings.SplitSeq(text, ",") {
			part = strings.TrimSpace(part)
			if given++; given > maxRanges {
				return nil, fmt.Errorf("destinations: more than %d of them in one rule", maxRanges)
			}
			if named, ok := names[part]; ok {
				all = append(all, named...)
				continue
			}
			r, err := parseRange(part)
			if err != nil {
				return nil, fmt.Errorf("destinations: %w", err)
			}
			all = append(all, r)
		}
	}
	if given == 0 {
		return nil, errors.New("destinations: at least one must be given; 0.0.0.0/0 and ::/0 are everywhere")
	}
	return all, nil
}

func parseRange(text string) (driver.AddrRange, error) {
	wrong := func() (driver.AddrRange, error) {
		return driver.AddrRange{}, fmt.Errorf("%q is neither an address, a network such as 10.0.0.0/8, nor a range such as 10.0.0.1-10.0.0.9", text)
	}
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return wrong()
		}
		return Network(prefix), nil
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err := netip.ParseAddr(strings.TrimSpace(first))
	if err != nil || from.Zone() != "" {
		return wrong()
	}
	to, err := netip.ParseAddr(strings.TrimSpace(last))
	if err != nil || to.Zone() != "" {
		return wrong()
	}
	from, to = from.Unmap(), to.Unmap()
	if from.Is4() != to.Is4() || to.Less(from) {
		return driver.AddrRange{}, fmt.Errorf("%q: a range goes from a lower to a higher address of the same family", text)
	}
	return driver.AddrRange{First: from, Last: to}, nil
}

// Network returns the addresses of a network.
func Network(prefix netip.Prefix) driver.AddrRange {
	first := prefix.Masked().Addr()
	bytes := first.AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return driver.AddrRange{First: first, Last: last}
}

func parsePorts(list []string) ([]driver.PortRange, error) {
	var all []driver.PortRange
	for _, text := range list {
		for part := range strings.SplitSeq(text, ",") {
			first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
			if !isRange {
				last = first
			}
			from, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
			to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
			if err1 != nil || err2 != nil || from < 1 || to < from {
				return nil, fmt.Errorf("ports: %q is neither a port from 1 to 65535 nor a range such as 8000-8999", part)
			}
			all = append(all, driver.PortRange{First: uint16(from), Last: uint16(to)})
			if len(all) > maxRanges {
				return nil, fmt.Errorf("ports: more than %d of them in one rule", maxRanges)
			}
		}
	}
	return all, nil
}

func parseICMP(kind, code *int64) (*driver.ICMPMessage, error) {
	if kind == nil && code == nil {
		return nil, nil //nolint:nilnil // every message
	}
	message := driver.ICMPMessage{Type: -1, Code: -1}
	for _, part := range []struct {
		name  string
		value *int64
		to    *int
	}{{"icmp_type", kind, &message.Type}, {"icmp_code", code, &message.Code}} {
		if part.value == nil {
			continue
		}
		if *part.value < -1 || *part.value > math.MaxUint8 {
			return nil, fmt.Errorf("%s: %d must be between 0 and 255, or -1 for any", part.name, *part.value)
		}
		*part.to = int(*part.value)
	}
	if message.Type < 0 && message.Code >= 0 {
		return nil, errors.New("icmp_code: needs an icmp_type")
	}
	return &message, nil
}

// FromDiego reads the rules of a definition. Diego lets later rules go before earlier ones, which decides what is logged.
func FromDiego(list []*models.SecurityGroupRule) ([]driver.EgressRule, error) {
	rules := make([]driver.EgressRule, len(list))
	for i, r := range list {
		text := Text{Protocol: r.Protocol, Destinations: r.Destinations, Log: r.Log}
		for _, port := range r.Ports {
			text.Ports = append(text.Ports, strconv.FormatUint(uint64(port), 10))
		}
		if p := r.PortRange; p != nil {
			text.Ports = append(text.Ports, fmt.Sprintf("%d-%d", p.Start, p.End))
		}
		if info := r.IcmpInfo; info != nil {
			kind, code := int64(info.Type), int64(info.Code)
			if kind < 0 {
				code = -1 // any type with any code
			}
			text.ICMPType, text.ICMPCode = &kind, &code
		}
		rule, err := text.Rule(nil)
		if err != nil {
			return nil, fmt.Errorf("egress_rules[%d].%w", i, err)
		}
		rules[len(list)-1-i] = rule
	}
	return rules, nil
}
