package egress

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ptr(n int64) *int64 { return &n }

// stories are rules, and the table they make in testdata/NAME.nft.
func stories(t *testing.T) map[string]driver.Egress {
	t.Helper()
	rule := func(text Text) driver.EgressRule {
		r, err := text.Rule(Names{"node": {{First: metadata[0].Next(), Last: metadata[0].Next()}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	web := rule(Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8", "192.0.2.1-192.0.2.9,192.0.2.10"}, Ports: []string{"80", "443, 8000-8999"}, Log: true})
	diego, err := FromDiego([]*models.SecurityGroupRule{
		{Protocol: "all", Destinations: []string{"0.0.0.0-9.255.255.255", "11.0.0.0-169.253.255.255,169.255.0.0-172.15.255.255"}},
		{Protocol: "udp", Destinations: []string{"0.0.0.0/0"}, Ports: []uint32{53}},
		{Protocol: "tcp", Destinations: []string{"198.51.100.7", "::/0"}, PortRange: &models.PortRange{Start: 1, End: 65535}, Log: true},
		{Protocol: "icmp", Destinations: []string{"0.0.0.0/0"}, IcmpInfo: &models.ICMPInfo{Type: -1, Code: -1}},
		{Protocol: "icmp", Destinations: []string{"203.0.113.0/24"}, IcmpInfo: &models.ICMPInfo{Type: 8, Code: 0}},
		{Protocol: "icmpv6", Destinations: []string{"2001:db8::/32"}, IcmpInfo: &models.ICMPInfo{Type: 128, Code: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	everywhere := rule(Text{Protocol: "all", Destinations: []string{"0.0.0.0/0", "::/0"}})
	return map[string]driver.Egress{
		"metadata": {Deny: []driver.EgressRule{Metadata()}},
		"name-server-at-metadata": {
			Pass: []driver.EgressRule{rule(Text{Protocol: "udp", Destinations: []string{"169.254.169.254"}, Ports: []string{"53"}})},
			Deny: []driver.EgressRule{Metadata()},
		},
		"nothing": {Within: [][]driver.EgressRule{{}}},
		"job":     {Deny: []driver.EgressRule{Metadata()}, Within: [][]driver.EgressRule{{web}}},
		"diego":   {Deny: []driver.EgressRule{Metadata()}, Within: [][]driver.EgressRule{diego}},
		"job-within-node": {
			Deny: []driver.EgressRule{rule(Text{Protocol: "tcp", Destinations: []string{"node"}, Ports: []string{"4646-4648"}}), Metadata()},
			Within: [][]driver.EgressRule{
				{rule(Text{Protocol: "all", Destinations: []string{"10.0.0.0/8,10.0.0.0/9", "11.0.0.0-11.255.255.255"}}), everywhere},
				{rule(Text{Protocol: "icmp", Destinations: []string{"10.0.0.1", "2001:db8::1"}, ICMPType: ptr(8)}), web},
			},
		},
	}
}

func TestPlan(t *testing.T) {
	for name, e := range stories(t) {
		t.Run(name, func(t *testing.T) {
			got := Plan("t-a1b2c3d4-web-0123456789ab", driver.IDRange{Host: 1 << 20, Size: 1 << 16}, e).String()
			file := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// Without a user namespace a container has no ids of its own, and its rules hold for everybody in the network namespace.
func TestPlan_withoutUserNamespace(t *testing.T) {
	got := Plan("c", driver.IDRange{}, driver.Egress{Deny: []driver.EgressRule{Metadata()}}).String()
	if strings.Contains(got, "skuid") {
		t.Errorf("a user is named:\n%s", got)
	}
}

func TestRule_refusals(t *testing.T) {
	to := []string{"192.0.2.1"}
	for want, text := range map[string]Text{
		"protocol: \"sctp\"":                  {Protocol: "sctp", Destinations: to},
		"protocol: \"\"":                      {Destinations: to},
		"destinations: at least one":          {Protocol: "all"},
		"destinations: \"example.org\"":       {Protocol: "all", Destinations: []string{"example.org"}},
		"destinations: \"\"":                  {Protocol: "all", Destinations: []string{"192.0.2.1,"}},
		"destinations: \"192.0.2.0/33\"":      {Protocol: "all", Destinations: []string{"192.0.2.0/33"}},
		"destinations: \"node\"":              {Protocol: "all", Destinations: []string{"node"}},
		"destinations: \"192.0.2.9-192.0.2.1": {Protocol: "all", Destinations: []string{"192.0.2.9-192.0.2.1"}},
		"of the same family":                  {Protocol: "all", Destinations: []string{"192.0.2.9-::1"}},
		"destinations: \"fe80::1%eth0\"":      {Protocol: "all", Destinations: []string{"fe80::1%eth0"}},
		"ports: \"0\"":                        {Protocol: "tcp", Destinations: to, Ports: []string{"0"}},
		"ports: \"65536\"":                    {Protocol: "tcp", Destinations: to, Ports: []string{"65536"}},
		"ports: \"9-8\"":                      {Protocol: "udp", Destinations: to, Ports: []string{"9-8"}},
		"ports: \"http\"":                     {Protocol: "tcp", Destinations: to, Ports: []string{"http"}},
		"ports: not allowed":                  {Protocol: "icmp", Destinations: to, Ports: []string{"1"}},
		"with protocol all":                   {Protocol: "all", Destinations: to, Ports: []string{"1"}},
		"icmp_type and icmp_code: not":        {Protocol: "tcp", Destinations: to, ICMPType: ptr(1)},
		"icmp_type: 256":                      {Protocol: "icmp", Destinations: to, ICMPType: ptr(256)},
		"icmp_code: -2":                       {Protocol: "icmp", Destinations: to, ICMPType: ptr(1), ICMPCode: ptr(-2)},
		"icmp_code: needs":                    {Protocol: "icmp", Destinations: to, ICMPCode: ptr(0)},
		"destinations: more than":             {Protocol: "all", Destinations: []string{strings.Repeat("192.0.2.1,", maxRanges) + "192.0.2.1"}},
		"ports: more than":                    {Protocol: "tcp", Destinations: to, Ports: []string{strings.Repeat("1,", maxRanges) + "1"}},
	} {
		if rule, err := text.Rule(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q (rule %+v)", text, err, want, rule)
		}
	}
}

func TestFromDiego_namesTheField(t *testing.T) {
	_, err := FromDiego([]*models.SecurityGroupRule{
		{Protocol: "all", Destinations: []string{"0.0.0.0/0"}}, {Protocol: "all", Destinations: []string{"x"}},
	})
	if err == nil || !strings.HasPrefix(err.Error(), "egress_rules[1].destinations: ") {
		t.Errorf("error %v", err)
	}
}
