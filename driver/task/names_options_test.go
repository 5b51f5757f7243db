package task

import (
	"strings"
	"testing"

	"drover/driver"
)

func TestNamesWish(t *testing.T) {
	for _, row := range []struct {
		promise string
		wish    NamesWish
		says    string
	}{
		{"takes nothing", NamesWish{}, ""},
		{"takes all", NamesWish{
			Hosts: []string{"db:10.0.0.1", "db6:::1", "db7:[fd00::7]", "a_b.example.com:1.2.3.4"},
			DNS:   DNS{Servers: []string{"10.0.0.2", "fd00::2"}, Searches: []string{"example.com", "x.", "."}, Options: []string{"ndots:2", "rotate"}},
		}, ""},
		{"refuses a host without an address", NamesWish{Hosts: []string{"db"}}, `extra_hosts: "db" must be NAME:IP`},
		{"refuses a host that is another name", NamesWish{Hosts: []string{"db:other"}}, `extra_hosts: "db:other"`},
		{"refuses a line break in a host", NamesWish{Hosts: []string{"db\n:1.1.1.1"}}, "extra_hosts"},
		{"refuses Docker's name of the host", NamesWish{Hosts: []string{"h:host-gateway"}}, "write the host's address"},
		{"refuses a server by name", NamesWish{DNS: DNS{Servers: []string{"dns.example.com"}}}, `dns_servers: "dns.example.com"`},
		{"refuses two domains in one", NamesWish{DNS: DNS{Searches: []string{"a b"}}}, `dns_search_domains: "a b"`},
		{"refuses two options in one", NamesWish{DNS: DNS{Options: []string{"rotate\nnameserver 6.6.6.6"}}}, "dns_options"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			err := row.wish.validate(Config{})
			if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("error %v, want one with %q", err, row.says)
			}
		})
	}
}

func TestApplyNames(t *testing.T) {
	const base = "# made by Nomad\nnameserver 10.0.0.2\nsearch old.example.com\noptions ndots:1"
	for _, row := range []struct {
		promise           string
		wish              NamesWish
		hosts, resolvConf string
	}{
		{"leaves all as it is", NamesWish{}, "127.0.0.1 localhost\n", base},
		{"adds hosts behind the others", NamesWish{Hosts: []string{"db:10.0.0.1", "db6:[::1]"}}, "127.0.0.1 localhost\n10.0.0.1 db\n::1 db6\n", base},
		{"replaces what the task says and keeps the rest", NamesWish{DNS: DNS{Searches: []string{"new.example.com"}}}, "127.0.0.1 localhost\n",
			"# made by Nomad\nnameserver 10.0.0.2\noptions ndots:1\nsearch new.example.com\n"},
		{"replaces everything", NamesWish{DNS: DNS{Servers: []string{"10.9.9.9"}, Searches: []string{"a", "b"}, Options: []string{"rotate"}}}, "127.0.0.1 localhost\n",
			"# made by Nomad\nnameserver 10.9.9.9\nsearch a b\noptions rotate\n"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			c := driver.Container{Hosts: "127.0.0.1 localhost\n", ResolvConf: base}
			if err := (facts{req: Request{Wish: Wish{Names: row.wish}}}).applyNames(&c); err != nil {
				t.Fatal(err)
			}
			if c.Hosts != row.hosts || c.ResolvConf != row.resolvConf {
				t.Errorf("hosts %q, resolv.conf %q", c.Hosts, c.ResolvConf)
			}
		})
	}
}
