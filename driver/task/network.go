package task

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// hostsFile renders /etc/hosts.
func hostsFile(hostname, ip string) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	if ip == "" {
		ip = "127.0.1.1"
	}
	fmt.Fprintf(&b, "%s %s\n", ip, hostname)
	return b.String()
}

// resolvConf renders /etc/resolv.conf of a DNS configuration.
func (d DNS) resolvConf() string {
	var b strings.Builder
	for _, server := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(d.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Searches, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.String()
}

// Where the host's resolvers are listed; the second holds the true ones when the first names systemd's local stub.
const (
	resolvConfPath = "/etc/resolv.conf"
	resolvedPath   = "/run/systemd/resolve/resolv.conf"
)

// chooseResolvConf returns the resolv.conf of a container. In a network namespace of its own a container cannot reach
// a resolver on the host's loopback, so the upstream list is used when there is one.
func chooseResolvConf(dns *DNS, ownNetwork bool, host, upstream string) string {
	if dns != nil && (len(dns.Servers) > 0 || len(dns.Searches) > 0 || len(dns.Options) > 0) {
		return dns.resolvConf()
	}
	if ownNetwork && onlyLoopback(host) && upstream != "" {
		return upstream
	}
	return host
}

func onlyLoopback(conf string) bool {
	any := false
	for lines := bufio.NewScanner(strings.NewReader(conf)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		any = true
		if ip, err := netip.ParseAddr(fields[1]); err != nil || !ip.IsLoopback() {
			return false
		}
	}
	return any
}

// readSmall returns a host file's content, or nothing.
func readSmall(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) > 64<<10 {
		return ""
	}
	return string(raw)
}

// namespaceIP returns the first global unicast address inside a network namespace, IPv4 before IPv6, or "".
func namespaceIP(path string) (string, error) {
	type answer struct {
		addrs []net.Addr
		err   error
	}
	ch := make(chan answer, 1)
	go func() {
		// The thread joins another network namespace and is never unlocked: it ends with this goroutine.
		runtime.LockOSThread()
		addrs, err := addrsIn(path)
		ch <- answer{addrs, err}
	}()
	got := <-ch
	if got.err != nil {
		return "", fmt.Errorf("network namespace %s: %w", path, got.err)
	}
	return pickAddress(got.addrs), nil
}

func addrsIn(path string) ([]net.Addr, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return net.InterfaceAddrs()
}

func pickAddress(addrs []net.Addr) string {
	v6 := ""
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok || !ipNet.IP.IsGlobalUnicast() {
			continue
		}
		if ipNet.IP.To4() != nil {
			return ipNet.IP.String()
		}
		if v6 == "" {
			v6 = ipNet.IP.String()
		}
	}
	return v6
}
