package task

import (
	"net/netip"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
	"drover/driver/egress"
)

// egressStory is what a task with an image, a network namespace and a name server at 10.0.0.2 is assembled from.
func egressStory(t *testing.T, wish []egress.Text, node EgressConfig) facts {
	t.Helper()
	f := stories(t)["image"]
	f.req.NetNS = "/var/run/netns/a1"
	f.req.Wish.Network.Egress, f.node.Network.Egress = wish, node
	f.nodeAddrs = []driver.AddrRange{{First: netip.MustParseAddr("192.0.2.200"), Last: netip.MustParseAddr("192.0.2.200")}}
	return f
}

// The table's text says best what may be reached.
func tableOf(t *testing.T, f facts) string {
	t.Helper()
	c, err := assemble(f)
	if err != nil {
		t.Fatal(err)
	}
	if c.Egress == nil {
		return ""
	}
	return egress.Plan(c.ID, c.IDs, *c.Egress).String()
}

func holds(t *testing.T, text string, has, not []string) {
	t.Helper()
	for _, want := range has {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for _, never := range not {
		if strings.Contains(text, never) {
			t.Errorf("%q is in\n%s", never, text)
		}
	}
}

func TestEgress_whatIsReached(t *testing.T) {
	web := []egress.Text{{Protocol: "tcp", Destinations: []string{"10.0.0.0/8"}, Ports: []string{"443"}}}
	diego := func(rules ...*models.SecurityGroupRule) func(f *facts) {
		return func(f *facts) {
			f.info, f.req.Wish.RunInfo = &driver.RunInfo{Kind: driver.KindLRP}, true
			f.def.egress = rules
		}
	}
	const server, allowed, refused = "ip daddr 10.0.0.2 meta l4proto udp th dport 53 accept", "ip daddr 10.0.0.0/8 meta l4proto tcp th dport 443 accept", "goto refuse"
	for _, row := range []struct {
		promise   string
		wish      []egress.Text
		node      EgressConfig
		change    func(f *facts)
		has, not  []string
		mustBeNil bool
	}{
		{promise: "everything, where nobody says otherwise", mustBeNil: true},
		{promise: "all but metadata", node: EgressConfig{BlockMetadata: true}, has: []string{"169.254.169.254", refused}, not: []string{"within", "ct state"}},
		{
			promise: "a name server at a metadata address", node: EgressConfig{BlockMetadata: true}, change: func(f *facts) { f.resolvConf = "nameserver 169.254.169.254\n" },
			has: []string{"ip daddr 169.254.169.254 meta l4proto udp th dport 53 accept", "ip daddr 169.254.169.254 meta l4proto tcp th dport 53 accept"},
		},
		{promise: "the job's and its name servers", wish: web, has: []string{allowed, server, "goto within-1"}, not: []string{"within-2"}},
		{promise: "name servers only, where the node is closed", node: EgressConfig{Closed: true}, has: []string{server, "goto within-1"}},
		{
			promise: "no more than the node allows", wish: web, node: EgressConfig{Closed: true, Allow: []egress.Text{{Protocol: "all", Destinations: []string{"10.1.0.0/16"}}}},
			has: []string{"ip daddr 10.1.0.0/16 goto within-2", allowed},
		},
		{
			promise: "nothing that the node denies", wish: web, node: EgressConfig{Deny: []egress.Text{{Protocol: "tcp", Destinations: []string{"10.9.0.0/16", "node"}}}},
			has: []string{"ip daddr { 10.9.0.0/16, 192.0.2.200 } meta l4proto tcp goto refuse"},
		},
		{
			promise: "exactly the platform's", change: diego(&models.SecurityGroupRule{Protocol: "tcp", Destinations: []string{"10.0.0.0/8"}, Ports: []uint32{443}}),
			has: []string{allowed}, not: []string{server},
		},
		{promise: "nothing, when the platform has no rules", change: diego(), has: []string{"chain within-1 {\n\t\tgoto refuse\n"}, not: []string{server}},
		{
			promise: "for the platform no more than the node allows", node: EgressConfig{Closed: true},
			change: diego(&models.SecurityGroupRule{Protocol: "all", Destinations: []string{"0.0.0.0/0"}}), has: []string{"udp th dport 53 goto within-2", "meta nfproto ipv4 accept"},
		},
		{promise: "what the node's network reaches", change: func(f *facts) { f.req.NetNS = "" }, node: EgressConfig{BlockMetadata: true}, mustBeNil: true},
		{promise: "the same with rules, by the operator's leave", wish: web, change: func(f *facts) { f.req.NetNS = "" }, node: EgressConfig{AllowHostNetwork: true}, mustBeNil: true},
	} {
		t.Run(row.promise, func(t *testing.T) {
			f := egressStory(t, row.wish, row.node)
			if row.change != nil {
				row.change(&f)
			}
			got := tableOf(t, f)
			if row.mustBeNil != (got == "") {
				t.Errorf("table:\n%s", got)
			}
			holds(t, got, row.has, row.not)
		})
	}
}

func TestEgress_refusals(t *testing.T) {
	web := egress.Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8"}, Log: true}
	diego := func(n int) func(f *facts) {
		return func(f *facts) {
			f.info = &driver.RunInfo{Kind: driver.KindLRP}
			for range n {
				f.def.egress = append(f.def.egress, &models.SecurityGroupRule{Protocol: "all", Destinations: []string{"0.0.0.0/0"}})
			}
		}
	}
	host := func(f *facts) { f.req.NetNS = "" }
	for _, row := range []struct {
		says   string
		wish   []egress.Text
		node   EgressConfig
		change func(f *facts)
	}{
		{"egress[0].log: this node's kernel", []egress.Text{web}, EgressConfig{}, func(*facts) {}},
		{"egress: rules need a network namespace", []egress.Text{web}, EgressConfig{}, func(f *facts) { host(f); f.kernelLogs = true }},
		{"egress_rules: rules need a network namespace", nil, EgressConfig{}, func(f *facts) { diego(1)(f); host(f) }},
		{"plugin option egress: rules need a network namespace", nil, EgressConfig{Closed: true}, host},
		{"plugin option egress: rules need a network namespace", nil, EgressConfig{Deny: []egress.Text{web}}, host},
		{"egress_rules: 3 rules; this node's operator allows 2", nil, EgressConfig{MaxRules: 2}, diego(3)},
	} {
		f := egressStory(t, row.wish, row.node)
		row.change(&f)
		if _, err := assemble(f); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("error %v, want %q", err, row.says)
		}
	}
	node := testNode()
	node.Network.Egress.MaxRules = 1
	for says, wish := range map[string]Wish{
		"egress: 2 rules":              {Image: "a", Network: NetworkWish{Egress: []egress.Text{web, web}}},
		"egress[0].protocol: ":         {Image: "a", Network: NetworkWish{Egress: []egress.Text{{Destinations: []string{"::1"}}}}},
		"egress[0].destinations: ":     {Image: "a", Network: NetworkWish{Egress: []egress.Text{{Protocol: "all", Destinations: []string{"node"}}}}},
		"egress: not allowed together": {RunInfo: true, Network: NetworkWish{Egress: []egress.Text{web}}},
	} {
		if err := wish.Validate(node); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want %q", err, says)
		}
	}
}

// A task that could remove its rules is not let run with them.
func TestEgress_notWithWhatEvadesIt(t *testing.T) {
	web := egress.Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8"}}
	for says, change := range map[string]func(c *driver.Container){
		"privileged":                        func(c *driver.Container) { c.Security.Privileged = true },
		`cap_add with userns = "host"`:      func(c *driver.Container) { c.Security.CapAdd = []string{"CAP_NET_ADMIN"} },
		`seccomp and the capability NET_RA`: func(c *driver.Container) { c.Seccomp = modeOff },
		"":                                  func(c *driver.Container) {},
	} {
		for _, node := range []EgressConfig{{}, {Closed: true}, {AllowHostNetwork: true, Closed: true}} {
			for _, userns := range []bool{true, false} {
				f := egressStory(t, []egress.Text{web}, node)
				c := &driver.Container{IDs: driver.IDRange{Host: 1 << 20, Size: 65536}}
				if !userns {
					c.IDs = driver.IDRange{}
				}
				change(c)
				err := f.applyEgress(c)
				refused := says != "" && !node.AllowHostNetwork && (!userns || says == "privileged")
				if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), says) {
					t.Errorf("%q, a user namespace %v, %+v: %v", says, userns, node, err)
				}
			}
		}
	}
}
