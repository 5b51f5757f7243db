//go:build root

package dev

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestNetwork brings up the network, joins a namespace to it with CNI's own plugins, and takes all of it down.
func TestNetwork_leavesNothingBehind(t *testing.T) {
	ctx := t.Context()
	before, err := readFilter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var n network
	if err := n.up(ctx, filepath.Join(dir, "cni"), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(n.Device); err != nil {
		t.Errorf("the device: %v", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(n.Gateway.String(), "0"))
	if err != nil {
		t.Errorf("nobody can listen on the gateway: %v", err)
	} else if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if on, err := os.ReadFile(forwarding); err != nil || on[0] != '1' {
		t.Errorf("forwarding is %q, %v", on, err)
	}
	// What the portmap plugin leaves.
	for _, rule := range [][]string{
		{"-t", "nat", "-N", "CNI-DROVER-TEST"},
		{"-t", "nat", "-A", "OUTPUT", "-m", "comment", "--comment", "a test of ours", "-j", "CNI-DROVER-TEST"},
	} {
		if out, err := exec.CommandContext(ctx, "iptables", rule...).CombinedOutput(); err != nil {
			t.Fatalf("iptables: %v: %s", err, out)
		}
	}
	// A platform that was killed is taken down by the next one, from what it noted.
	again, err := loadNetwork(filepath.Join(dir, "cni"))
	if err != nil || again == nil {
		t.Fatalf("the network left no note: %v, %v", again, err)
	}
	if err := again.down(context.WithoutCancel(ctx)); err != nil {
		t.Error(err)
	}
	if _, err := net.InterfaceByName(n.Device); err == nil {
		t.Error("the device is still there")
	}
	if left, err := loadNetwork(filepath.Join(dir, "cni")); left != nil || err != nil {
		t.Errorf("the note is still there: %v, %v", left, err)
	}
	after, err := readFilter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(after.Chains["iptables nat"], "CNI-DROVER-TEST") {
		t.Errorf("chains before %v, after %v", before.Chains, after.Chains)
	}
}
