package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// networkName is the CNI network that apps join: cni/drover in jobs.
const networkName = "drover"

const forwarding = "/proc/sys/net/ipv4/ip_forward"

// network is a bridge device of our own with a private subnet. Containers are behind it, with the host's ports mapped
// to theirs by CNI, and reach the outside masqueraded.
type network struct {
	Device  string       `json:"device"`
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
	// Before and Forwarded are what the machine's packet filter and forwarding looked like, so that down leaves it so.
	Before    filter `json:"before"`
	Forwarded string `json:"forwarded"`
	// Opened says that rules were added for a filter that forwards nothing by default.
	Opened bool `json:"opened"`
	// file holds all this while the network is up, for one who comes after us.
	file string
}

// networkFile is the name of network.file, in CNI's configuration directory, where CNI does not take it for its own.
const networkFile = "drover.before"

// loadNetwork returns the network that was not taken down, or nil.
func loadNetwork(configDir string) (*network, error) {
	n := &network{file: filepath.Join(configDir, networkFile)}
	text, err := os.ReadFile(n.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	if err != nil {
		return nil, fmt.Errorf("read the network of an earlier run: %w", err)
	}
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fmt.Errorf("read the network of an earlier run: %w", err)
	}
	return n, nil
}

// save writes down what down needs to know.
func (n *network) save() error {
	text, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("note the network: %w", err)
	}
	if err := os.WriteFile(n.file, text, 0o600); err != nil {
		return fmt.Errorf("note the network: %w", err)
	}
	return nil
}

// up makes the device, lets packets through and writes CNI's configuration to configDir. What it did before a failure
// is taken back.
func (n *network) up(ctx context.Context, configDir, stateDir string) (err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list network devices: %w", err)
	}
	if n.Before, err = readFilter(ctx); err != nil {
		return err
	}
	forwarded, err := os.ReadFile(forwarding)
	if err != nil {
		return fmt.Errorf("read forwarding: %w", err)
	}
	if n.Subnet, n.Gateway, err = freeSubnet(); err != nil {
		return err
	}
	n.Forwarded = strings.TrimSpace(string(forwarded))
	n.Device = freeDevice(interfaces)
	if err := writeCNI(configDir, stateDir, n.Device, n.Subnet); err != nil {
		return err
	}
	n.Opened = n.Before.DropsForwarded
	n.file = filepath.Join(configDir, networkFile)
	if err := n.save(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.down(context.WithoutCancel(ctx)))
		}
	}()
	for _, args := range [][]string{
		{"link", "add", n.Device, "type", "bridge"},
		{"addr", "add", netip.PrefixFrom(n.Gateway, n.Subnet.Bits()).String(), "dev", n.Device},
		{"link", "set", n.Device, "up"},
	} {
		if err := command(ctx, "ip", args...); err != nil {
			return err
		}
	}
	if err := os.WriteFile(forwarding, []byte("1"), 0o600); err != nil {
		return fmt.Errorf("let packets through: %w", err)
	}
	return n.openForward(ctx)
}

// openForward lets packets of our device pass where the machine forwards none by default, as beside a Docker daemon.
func (n *network) openForward(ctx context.Context) error {
	if !n.Opened {
		return nil
	}
	for _, direction := range []string{"-i", "-o"} {
		if err := command(ctx, "iptables", "-I", "FORWARD", direction, n.Device, "-j", "ACCEPT"); err != nil {
			return err
		}
	}
	return nil
}

// down removes the device and everything that CNI and we left in the packet filter. It goes on after a failure.
func (n *network) down(ctx context.Context) error {
	var failures []error
	if n.Opened {
		for _, direction := range []string{"-i", "-o"} {
			rule := []string{"FORWARD", direction, n.Device, "-j", "ACCEPT"}
			if command(ctx, "iptables", append([]string{"-C"}, rule...)...) == nil {
				failures = append(failures, command(ctx, "iptables", append([]string{"-D"}, rule...)...))
			}
		}
	}
	if _, err := net.InterfaceByName(n.Device); err == nil {
		failures = append(failures, command(ctx, "ip", "link", "delete", n.Device))
	}
	failures = append(failures, n.Before.restore(ctx))
	if n.Forwarded != "" {
		if err := os.WriteFile(forwarding, []byte(n.Forwarded), 0o600); err != nil {
			failures = append(failures, fmt.Errorf("restore forwarding: %w", err))
		}
	}
	return errors.Join(append(failures, os.RemoveAll(n.file))...)
}

// writeCNI describes the network to CNI, which keeps its addresses below stateDir.
func writeCNI(configDir, stateDir, device string, subnet netip.Prefix) error {
	if err := os.MkdirAll(configDir, 0o755); err != nil {
		return fmt.Errorf("make CNI's directory: %w", err)
	}
	config := fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": %q,
  "plugins": [
    {"type": "loopback"},
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": %q,
        "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
`, networkName, device, filepath.Join(stateDir, "addresses"), subnet)
	if err := os.WriteFile(filepath.Join(configDir, networkName+".conflist"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("describe the network to CNI: %w", err)
	}
	return nil
}

// freeDevice is the first of drover0, drover1, … that is not taken.
func freeDevice(taken []net.Interface) string {
	for i := 0; ; i++ {
		name := "drover" + strconv.Itoa(i)
		if !slices.ContainsFunc(taken, func(device net.Interface) bool { return device.Name == name }) {
			return name
		}
	}
}

// freeSubnet is the first of 172.30.0.0/24, 172.30.1.0/24, … that no device is in, with its first address. The
// machine's own resolvers are kept clear of too.
func freeSubnet() (netip.Prefix, netip.Addr, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	var taken []netip.Prefix
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			taken = append(taken, prefix)
		}
	}
	return chooseSubnet(taken)
}

func chooseSubnet(taken []netip.Prefix) (netip.Prefix, netip.Addr, error) {
	for third := range 256 {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(third), 0}), 24)
		if !slices.ContainsFunc(taken, subnet.Overlaps) {
			return subnet, subnet.Addr().Next(), nil
		}
	}
	return netip.Prefix{}, netip.Addr{}, errors.New("no subnet below 172.30.0.0/16 is free")
}

// command runs a system program and tells what it said when it failed.
func command(ctx context.Context, program string, args ...string) error {
	_, err := output(ctx, nil, program, args...)
	return err
}

func output(ctx context.Context, input []byte, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(input)
	var answer, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &answer, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return answer.Bytes(), nil
}
