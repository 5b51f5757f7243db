package agent

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// consulConfig renders Consul's configuration; ports are http, server, serf_lan, serf_wan.
func consulConfig(config Config, ports []int) string {
	return fmt.Sprintf(`{
  "server": true, "bootstrap_expect": 1, "datacenter": "dc1", "node_name": "dev",
  "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "data_dir": %q,
  "disable_update_check": true, "log_level": "INFO", "leave_on_terminate": false,
  "performance": {"raft_multiplier": 1},
  "ports": {"http": %d, "server": %d, "serf_lan": %d, "serf_wan": %d, "dns": -1, "grpc": -1, "grpc_tls": -1}
}
`, config.Dir+"/consul", ports[0], ports[1], ports[2], ports[3])
}

// nomadConfig renders Nomad's configuration; ports are http, rpc, serf.
func nomadConfig(config Config, consulAddr string, ports []int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `name = "dev"
data_dir = %q
bind_addr = "127.0.0.1"
log_level = %q
disable_update_check = true
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
ports {
  http = %d
  rpc  = %d
  serf = %d
}
server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
}
client {
  enabled           = true
  network_interface = %q
  cni_path          = %q
  cni_config_dir    = %q
  options {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}
`, config.Dir+"/nomad", config.LogLevel, ports[0], ports[1], ports[2], config.NetworkInterface, config.CNIPath, config.CNIConfigDir)
	if config.PluginDir != "" {
		fmt.Fprintf(&b, "plugin_dir = %q\n", config.PluginDir)
	}
	if consulAddr != "" {
		fmt.Fprintf(&b, "consul {\n  address = %q\n}\n", strings.TrimPrefix(consulAddr, "http://"))
	}
	for _, name := range slices.Sorted(maps.Keys(config.Plugins)) {
		fmt.Fprintf(&b, "plugin %q {\n  config {\n%s\n  }\n}\n", name, config.Plugins[name])
	}
	b.WriteString(config.Extra)
	return b.String()
}

// freePorts returns n TCP ports of the loopback interface that nobody listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, fmt.Errorf("agent: find a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // held until all are found, so that no two are the same
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		ports = append(ports, number)
	}
	return ports, nil
}
