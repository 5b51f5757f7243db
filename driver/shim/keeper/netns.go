package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"drover/driver/egress"
)

// inNetNS runs do on a thread in the network namespace at path; empty is our own. The thread is never used again.
func inNetNS(path string, do func() error) error {
	if path == "" {
		return do()
	}
	return inNS(unix.CLONE_NEWNET, path, do)
}

// inNS runs do on a thread in the namespace of a kind at path.
func inNS(kind int, path string, do func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = ns.Close() }()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and no unlock: Go ends the thread with the goroutine
		if err := unix.Setns(int(ns.Fd()), kind); err != nil {
			result <- fmt.Errorf("enter namespace %s: %w", path, err)
			return
		}
		result <- do()
	}()
	return <-result
}

// allowUnprivilegedNet lets processes without capabilities bind low ports and ping: in a user namespace, even root's
// capabilities do not count for a network namespace that is not its own. Kernels that know no such switch have none.
func allowUnprivilegedNet() {
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}

// closeEgress makes the container's egress rules in the network namespace of the calling thread.
func (k *keeper) closeEgress() error {
	switch {
	case k.wish.Egress == nil:
		return nil
	case k.wish.NetNS == "":
		return errors.New("egress rules need a network namespace of the task's own")
	}
	return egress.Apply(k.wish.ID, k.wish.IDs, *k.wish.Egress)
}

// firstIPv4 returns the first IPv4 address of the calling thread's network namespace that is not a loopback one, as
// Diego's health checks look for it.
func firstIPv4() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String(), nil
		}
	}
	return "", errors.New("no address but loopback's")
}
