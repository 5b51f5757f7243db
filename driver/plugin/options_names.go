package plugin

import "drover/driver/task"

// nameOptions: the names that a task resolves.
func nameOptions() []Option {
	return []Option{
		{Name: "extra_hosts", Kind: Strings, Doc: "lines of `/etc/hosts`, as `NAME:IP`"},
		{Name: "dns_servers", Kind: Strings, Default: "the group's, then the node's", Doc: "addresses of name servers"},
		{Name: "dns_search_domains", Kind: Strings, Default: "as above", Doc: "domains in which names without dots are looked up"},
		{Name: "dns_options", Kind: Strings, Default: "as above", Doc: "such as `ndots:2`"},
	}
}

type nameTask struct {
	ExtraHosts []string `codec:"extra_hosts"`
	DNSServers []string `codec:"dns_servers"`
	DNSSearch  []string `codec:"dns_search_domains"`
	DNSOptions []string `codec:"dns_options"`
}

func (c nameTask) into(w *task.Wish) error {
	w.Names = task.NamesWish{Hosts: c.ExtraHosts, DNS: task.DNS{Servers: c.DNSServers, Searches: c.DNSSearch, Options: c.DNSOptions}}
	return nil
}
