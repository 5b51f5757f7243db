package task

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChooseResolvConf(t *testing.T) {
	const stub, real = "nameserver 127.0.0.53\noptions edns0\n", "nameserver 10.0.0.2\n"
	for _, row := range []struct {
		promise        string
		dns            *DNS
		own            bool
		host, upstream string
		want           string
	}{
		{"copies the host's", nil, false, real, "", real},
		{"keeps the host's stub in the host's network", nil, false, stub, real, stub},
		{"goes round the stub in a network of its own", nil, true, stub, real, real},
		{"keeps a reachable resolver in a network of its own", nil, true, real, "nameserver 9.9.9.9\n", real},
		{"has nothing better than the stub", nil, true, stub, "", stub},
		{"obeys the jobspec", &DNS{Servers: []string{"1.1.1.1", "8.8.8.8"}, Searches: []string{"a", "b"}, Options: []string{"ndots:2"}}, true, stub, real,
			"nameserver 1.1.1.1\nnameserver 8.8.8.8\nsearch a b\noptions ndots:2\n"},
		{"takes an empty block for none", &DNS{}, false, real, "", real},
	} {
		t.Run(row.promise, func(t *testing.T) {
			if got := chooseResolvConf(row.dns, row.own, row.host, row.upstream); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestHostsFile(t *testing.T) {
	want := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n172.26.64.3 web\n"
	if got := hostsFile("web", "172.26.64.3"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPickAddress(t *testing.T) {
	ip := func(s string) net.Addr { return &net.IPNet{IP: net.ParseIP(s)} }
	for want, addrs := range map[string][]net.Addr{
		"172.26.64.3": {ip("127.0.0.1"), ip("fe80::1"), ip("fd00::3"), ip("172.26.64.3")},
		"fd00::3":     {ip("::1"), ip("fe80::1"), ip("fd00::3")},
		"":            {ip("127.0.0.1")},
	} {
		if got := pickAddress(addrs); got != want {
			t.Errorf("%v: got %q, want %q", addrs, got, want)
		}
	}
}

func TestInstanceEnv(t *testing.T) {
	ports := orderPorts([]Port{
		{Label: "ssh", Host: 20002, Container: 2222}, {Label: "web", Host: 20001, Container: 8080}, {Label: "extra", Host: 5, Container: 6},
	}, []uint32{8080, 2222})
	want := []string{
		"CF_INSTANCE_IP=10.1.2.3", "CF_INSTANCE_INTERNAL_IP=172.26.64.3", "CF_INSTANCE_PORT=20001", "CF_INSTANCE_ADDR=10.1.2.3:20001",
		`CF_INSTANCE_PORTS=[{"external":20001,"internal":8080},{"external":20002,"internal":2222},{"external":5,"internal":6}]`,
	}
	if diff := cmp.Diff(want, instanceEnv("10.1.2.3", "172.26.64.3", ports)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = []string{"CF_INSTANCE_IP=h", "CF_INSTANCE_INTERNAL_IP=h", "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=", "CF_INSTANCE_PORTS=[]"}
	if diff := cmp.Diff(want, instanceEnv("h", "h", nil)); diff != "" {
		t.Errorf("without ports (-want +got):\n%s", diff)
	}
}
