//go:build root

package keeper_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/egress"
	"drover/driver/shim"
)

// world is a container's network namespace, and another one at the other end of a cable that answers at all addresses:
// tcp at every port of worldPorts, udp at port 53, and pings.
type world struct{ inside, outside string }

var worldPorts = []string{"80", "443", "8080"}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{inside: newNetNS(t), outside: newNetNS(t)}
	in := func(path string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "nsenter", append([]string{"--net=" + path}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	in(w.inside, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	inNamespace(t, w.outside, func() error {
		self, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer func() { _ = self.Close() }()
		cmd := exec.CommandContext(t.Context(), "nsenter", "--net="+w.inside, "ip", "link", "set", "eth1", "netns", "/proc/self/fd/3")
		cmd.ExtraFiles = []*os.File{self}
		return cmd.Run()
	})
	in(w.inside, "ip", "addr", "add", "10.99.0.2/24", "dev", "eth0")
	in(w.inside, "ip", "addr", "add", "fd99::2/64", "dev", "eth0", "nodad")
	in(w.inside, "ip", "link", "set", "eth0", "up")
	in(w.outside, "ip", "addr", "add", "10.99.0.1/24", "dev", "eth1")
	in(w.outside, "ip", "addr", "add", "fd99::1/64", "dev", "eth1", "nodad")
	in(w.outside, "ip", "link", "set", "eth1", "up")
	in(w.inside, "ip", "route", "add", "default", "via", "10.99.0.1")
	in(w.inside, "ip", "-6", "route", "add", "default", "via", "fd99::1")
	in(w.outside, "ip", "route", "add", "local", "0.0.0.0/1", "dev", "lo")
	in(w.outside, "ip", "route", "add", "local", "128.0.0.0/1", "dev", "lo")
	for _, prefix := range []string{"fd00:ec2::/64", "2001:db8::/32"} {
		in(w.outside, "ip", "-6", "route", "add", "local", prefix, "dev", "lo")
	}
	w.serve(t)
	return w
}

// inNamespace runs do on a thread in a network namespace.
func inNamespace(t *testing.T, path string, do func() error) {
	t.Helper()
	if err := tryInNamespace(path, do); err != nil {
		t.Fatal(err)
	}
}

func tryInNamespace(path string, do func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and no unlock: the thread ends with its namespace
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- do()
	}()
	return <-result
}

func (w world) serve(t *testing.T) {
	t.Helper()
	inNamespace(t, w.outside, func() error {
		for _, port := range worldPorts {
			if err := serveTCP(t, port); err != nil {
				return err
			}
		}
		return serveUDP(t, 53)
	})
}

func serveTCP(t *testing.T, port string) error {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(true)
	listener, err := config.Listen(t.Context(), "tcp", ":"+port)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_ = connection.Close()
		}
	}()
	return nil
}

// serveUDP answers from the address that was asked.
func serveUDP(t *testing.T, port int) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		_ = unix.Close(fd)
	})
	if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1), unix.Bind(fd, &unix.SockaddrInet4{Port: port})); err != nil {
		return err
	}
	go func() {
		data, control := make([]byte, 1500), make([]byte, 128)
		for {
			n, cn, _, from, err := unix.Recvmsg(fd, data, control, 0)
			if err != nil || n == 0 {
				return
			}
			// What was ipi_addr becomes ipi_spec_dst, and no device is named.
			message := control[:cn]
			copy(message[unix.CmsgLen(0)+4:], message[unix.CmsgLen(0)+8:unix.CmsgLen(0)+12])
			copy(message[unix.CmsgLen(0):], make([]byte, 4))
			_ = unix.Sendmsg(fd, data[:n], message, from, 0)
		}
	}()
	return nil
}

// tables lists the nftables of the container's namespace.
func (w world) tables(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nsenter", "--net="+w.inside, "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return string(out)
}

// tries runs commands of the probe in the container, and says which of them fail.
func (b *box) tries(reachable bool, commands ...string) {
	b.t.Helper()
	for _, command := range commands {
		var out strings.Builder
		began := time.Now()
		exit, err := b.client.Exec(b.t.Context(), shim.ExecRequest{
			Process: driver.Process{Args: append([]string{"/bin/probe"}, strings.Fields(command)...), User: "vcap"}, Stdout: &out, Stderr: &out,
		})
		if err != nil || (exit.Code == 0) != reachable {
			b.t.Errorf("%s: exit %+v, error %v, want reachable %v: %s", command, exit, err, reachable, out.String())
		}
		if !reachable && strings.Contains(out.String(), "timeout") {
			b.t.Errorf("%s: nobody told the process that it may not, in %v: %s", command, time.Since(began), out.String())
		}
	}
}

func egressRule(t *testing.T, text egress.Text) driver.EgressRule {
	t.Helper()
	rule, err := text.Rule(nil)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

// boxIn starts a container that sleeps in a world.
func boxIn(t *testing.T, w world, e *driver.Egress) *box {
	t.Helper()
	b := newBox(t, "sleep", "600")
	b.wish.NetNS, b.wish.Egress = w.inside, e
	return b.start()
}

func TestEgress_metadataIsClosed(t *testing.T) {
	w := newWorld(t)
	b := boxIn(t, w, &driver.Egress{Deny: []driver.EgressRule{egress.Metadata()}})
	b.tries(true, "dial 10.99.0.1:80", "dial 169.254.169.253:80", "dial [fd00:ec2::253]:80", "ask 8.8.8.8:53", "ping 10.99.0.1", "ping fd99::1", "dialmp 10.0.0.1:80")
	b.tries(false, "dial 169.254.169.254:80", "dial 169.254.170.2:80", "dial [fd00:ec2::254]:80", "dial [::ffff:169.254.169.254]:80",
		"ask 169.254.169.254:53", "ping 169.254.169.254", "ping fd00:ec2::254", "dialmp 169.254.169.254:80")
	// Who is not of the container goes where they like: a sidecar of another driver.
	inNamespace(t, w.inside, func() error { return connect("169.254.169.254:80") })
}

func connect(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}

func TestEgress_onlyWhatIsAllowed(t *testing.T) {
	w := newWorld(t)
	minusOne, request := int64(-1), int64(8)
	b := boxIn(t, w, &driver.Egress{
		Pass: []driver.EgressRule{egressRule(t, egress.Text{Protocol: "udp", Destinations: []string{"169.254.169.254"}, Ports: []string{"53"}})},
		Deny: []driver.EgressRule{egress.Metadata(), egressRule(t, egress.Text{Protocol: "all", Destinations: []string{"10.5.0.0/16"}})},
		Within: [][]driver.EgressRule{{
			egressRule(t, egress.Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8", "192.0.2.1-192.0.2.9,198.51.100.7", "2001:db8::/32"}, Ports: []string{"80", "8000-8999"}}),
			egressRule(t, egress.Text{Protocol: "tcp", Destinations: []string{"203.0.113.1"}, Ports: []string{"443"}, Log: true}),
			egressRule(t, egress.Text{Protocol: "udp", Destinations: []string{"10.0.0.0/8"}, Ports: []string{"53"}}),
			egressRule(t, egress.Text{Protocol: "icmp", Destinations: []string{"10.0.0.0/8"}, ICMPType: &request, ICMPCode: &minusOne}),
			egressRule(t, egress.Text{Protocol: "icmpv6", Destinations: []string{"fd99::/64"}}),
			egressRule(t, egress.Text{Protocol: "all", Destinations: []string{"100.64.0.0/10", "255.0.0.0-255.255.255.255"}}),
		}},
	})
	b.tries(true, "dial 10.0.0.0:80", "dial 10.255.255.254:8080", "dial 192.0.2.1:80", "dial 192.0.2.8:8080", "dial 198.51.100.7:80",
		"dial [2001:db8::1]:80", "dial 203.0.113.1:443", "ask 10.99.0.1:53", "ping 10.99.0.1", "ping fd99::1", "ask 169.254.169.254:53",
		"dial 100.64.0.9:443", "ask 100.127.255.255:53", "dialmp 10.0.0.1:80")
	b.tries(false, "dial 9.255.255.255:80", "dial 11.0.0.0:80", "dial 10.0.0.1:443", "dial 192.0.2.0:80", "dial 192.0.2.10:80",
		"dial 198.51.100.6:80", "dial 198.51.100.8:80", "dial 203.0.113.1:80", "dial [fd00:ec2::1]:80", "dial [fd99::1]:80", "ask 11.0.0.1:53",
		"ping 11.0.0.1", "ping 2001:db8::1", "dial 169.254.169.254:80", "dial 10.5.0.1:80", "ask 10.5.0.1:53", "dialmp 11.0.0.1:80",
		"dialmp [fd99::1]:80", "dial 100.128.0.0:80")
	if rules := w.tables(t); !strings.Contains(rules, `counter packets 1 bytes 60 log prefix "`+b.wish.ID[:min(28, len(b.wish.ID))]+` " level info`) {
		t.Errorf("one connection is to be logged:\n%s", rules)
	}
	inNamespace(t, w.inside, func() error { return connect("11.0.0.1:80") })
}

func TestEgress_answersGoOut(t *testing.T) {
	w := newWorld(t)
	b := newBox(t, "listen", "8080")
	b.wish.NetNS, b.wish.Egress = w.inside, &driver.Egress{Within: [][]driver.EgressRule{nil}}
	b.start()
	b.sees(b.out, "listening")
	for _, address := range []string{"10.99.0.2:8080", "[fd99::2]:8080"} {
		inNamespace(t, w.outside, func() error { return connect(address) })
	}
	b.tries(true, "dial 127.0.0.1:8080", "dial 10.99.0.2:8080", "dial [::1]:8080")
	b.tries(false, "dial 10.99.0.1:80", "dial [fd99::1]:80", "ask 10.99.0.1:53", "ping 10.99.0.1")
}

func TestEgress_withinEachList(t *testing.T) {
	w := newWorld(t)
	b := boxIn(t, w, &driver.Egress{Within: [][]driver.EgressRule{
		{egressRule(t, egress.Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8"}})},
		{egressRule(t, egress.Text{Protocol: "all", Destinations: []string{"10.1.0.0/16", "11.0.0.0/8"}})},
	}})
	b.tries(true, "dial 10.1.0.1:80")
	b.tries(false, "dial 10.2.0.1:80", "dial 11.0.0.1:80", "ask 10.1.0.1:53")
}

func TestEgress_endsWithTheTask(t *testing.T) {
	w := newWorld(t)
	closed := &driver.Egress{Within: [][]driver.EgressRule{nil}}
	b, other := boxIn(t, w, closed), boxIn(t, w, closed)
	if rules := w.tables(t); strings.Count(rules, "table inet") != 2 {
		t.Errorf("want two tables:\n%s", rules)
	}
	if err := b.client.Stop(t.Context(), "SIGKILL", 0); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if rules := w.tables(t); strings.Count(rules, "table inet") != 1 || !strings.Contains(rules, egress.TableName(other.wish.ID)+" ") {
		t.Errorf("want the other's table only:\n%s", rules)
	}
}

func TestEgress_endsWithoutTheShim(t *testing.T) {
	w := newWorld(t)
	b := boxIn(t, w, &driver.Egress{Within: [][]driver.EgressRule{nil}})
	b.killShim()
	if rules := w.tables(t); !strings.Contains(rules, egress.TableName(b.wish.ID)) {
		t.Errorf("the container runs on without its rules:\n%s", rules)
	}
	if err := shim.Destroy(t.Context(), b.dir); err != nil {
		t.Fatal(err)
	}
	if rules := w.tables(t); rules != "" {
		t.Errorf("left behind:\n%s", rules)
	}
}

func TestEgress_needsANetwork(t *testing.T) {
	b := newBox(t, "echo", "hello")
	b.wish.Egress = &driver.Egress{Deny: []driver.EgressRule{egress.Metadata()}}
	_, err := shim.Start(t.Context(), program, b.dir, b.wish)
	t.Cleanup(b.destroy)
	if err == nil || !strings.Contains(err.Error(), "egress rules need a network namespace") {
		t.Errorf("error %v", err)
	}
}

func TestEgress_manyRules(t *testing.T) {
	w := newWorld(t)
	var rules []driver.EgressRule
	var to []driver.AddrRange
	for i := range 4000 {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 1})
		to = append(to, driver.AddrRange{First: a, Last: a})
	}
	for range 1000 {
		rules = append(rules, egressRule(t, egress.Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8", "192.0.2.1"}, Ports: []string{"80", "443"}}))
	}
	rules = append(rules, driver.EgressRule{Protocol: driver.EgressAll, To: to})
	b := boxIn(t, w, &driver.Egress{Within: [][]driver.EgressRule{rules}})
	b.tries(true, "dial 10.0.0.1:80", "dial 20.0.0.1:80", "dial 20.15.159.1:80", "dial 20.7.0.1:80")
	b.tries(false, "dial 20.0.0.2:80", "dial 20.15.160.1:80", "dial 19.255.255.255:80")
}
