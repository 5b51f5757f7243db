package task

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"drover/driver"
)

// NamesWish is what a job says of the names that its task resolves.
type NamesWish struct {
	// Hosts are lines of /etc/hosts as Docker writes them: NAME:IP.
	Hosts []string
	// DNS takes the place, part by part, of what the group's network or the node has.
	DNS DNS
}

func (w NamesWish) validate(Config) error {
	_, err := w.hosts()
	errs := []error{err}
	for _, server := range w.DNS.Servers {
		if _, err := netip.ParseAddr(server); err != nil {
			errs = append(errs, fmt.Errorf("dns_servers: %q is not an IP address", server))
		}
	}
	for _, domain := range w.DNS.Searches {
		if domain != "." && !isHostname(strings.TrimSuffix(domain, ".")) {
			errs = append(errs, fmt.Errorf("dns_search_domains: %q is not a domain", domain))
		}
	}
	for _, option := range w.DNS.Options {
		if option == "" || strings.ContainsFunc(option, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			errs = append(errs, fmt.Errorf("dns_options: %q is not one option, such as \"ndots:2\"", option))
		}
	}
	return errors.Join(errs...)
}

// applyNames puts into the container which names it knows.
func (f facts) applyNames(c *driver.Container) error {
	lines, err := f.req.Wish.Names.hosts()
	if err != nil {
		return err
	}
	c.Hosts += lines
	c.ResolvConf = f.req.Wish.Names.DNS.over(c.ResolvConf)
	return nil
}

// hosts are the lines that are added to /etc/hosts.
func (w NamesWish) hosts() (string, error) {
	var b strings.Builder
	var errs []error
	for _, entry := range w.Hosts {
		name, address, _ := strings.Cut(entry, ":")
		ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"))
		switch {
		case address == "host-gateway":
			errs = append(errs, fmt.Errorf("extra_hosts: %q: no gateway to the host is known here; write the host's address", entry))
		case err != nil || !isHostname(name):
			errs = append(errs, fmt.Errorf("extra_hosts: %q must be NAME:IP", entry))
		default:
			fmt.Fprintf(&b, "%s %s\n", ip, name)
		}
	}
	return b.String(), errors.Join(errs...)
}

func isHostname(name string) bool {
	return name != "" && len(name) <= 253 && !strings.ContainsFunc(name, func(r rune) bool { return r != '_' && notInHostname(r) })
}

// over puts these settings over a resolv.conf, of which the rest is kept.
func (d DNS) over(base string) string {
	set := map[string]bool{
		"nameserver": len(d.Servers) > 0, "search": len(d.Searches) > 0, "domain": len(d.Searches) > 0, "options": len(d.Options) > 0,
	}
	if !set["nameserver"] && !set["search"] && !set["options"] {
		return base
	}
	var b strings.Builder
	for line := range strings.Lines(base) {
		if fields := strings.Fields(line); len(fields) > 0 && !set[fields[0]] {
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return b.String() + d.resolvConf()
}
