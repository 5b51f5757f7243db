//go:build e2e

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
)

// networkName is a network that each agent of these tests offers: a cable from the allocation to the host, which has the
// address hostSide there. Nothing of it is left on the host once the allocation's network namespace is gone.
const (
	networkName = "drover-e2e"
	hostSide    = "10.199.77.1"
)

func writeNetwork(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": %q, "plugins": [
  {"type": "loopback"},
  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.199.77.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
]}`, networkName, filepath.Join(dir, "leases"))
	if err := os.WriteFile(filepath.Join(dir, networkName+".conflist"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// inNetwork gives the job's group a network of its own.
func inNetwork(job *nomad.Job, _ *nomad.Task) {
	job.TaskGroups[0].Networks = []*nomad.NetworkResource{{Mode: "cni/" + networkName}}
}

// listener accepts connections on all addresses of the host and returns its port.
func listener(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			connection, err := l.Accept()
			if err != nil {
				return
			}
			_ = connection.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestDriver_egress(t *testing.T) {
	denied := listener(t)
	n := startDriverNode(t, 512, fmt.Sprintf(`
    egress {
      allow_host_network = false
      deny {
        protocol     = "tcp"
        destinations = ["node"]
        ports        = ["%s"]
      }
    }`, denied))
	ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap"}), "team/probe:1")
	open, closed := listener(t), listener(t)
	image := func(more map[string]any) map[string]any {
		config := map[string]any{"image": ref, "args": []string{"sleep", "600"}}
		for name, value := range more {
			config[name] = value
		}
		return config
	}
	only := []map[string]any{{"protocol": "tcp", "destinations": []string{hostSide + "-" + hostSide}, "ports": []string{open + "," + denied}}}
	reaches := func(t *testing.T, alloc *nomad.Allocation, port string, want bool) {
		t.Helper()
		code, _, stderr := n.exec(t, alloc, false, nil, nil, "/bin/probe", "dial", hostSide+":"+port)
		if (code == 0) != want || strings.Contains(stderr, "timeout") {
			t.Errorf("dial port %s: exit %d, want reached %v: %s", port, code, want, stderr)
		}
	}

	t.Run("a task without rules reaches all but what the operator denies", func(t *testing.T) {
		alloc := n.start(t, taskOf("open", nomad.JobTypeService, image(nil), inNetwork))
		n.await(t, alloc, "running")
		reaches(t, alloc, open, true)
		reaches(t, alloc, closed, true)
		reaches(t, alloc, denied, false)
		if rules := rulesOf(t, alloc); !strings.Contains(rules, "169.254.169.254") {
			t.Errorf("the metadata address is open:\n%s", rules)
		}
	})
	t.Run("a task with rules reaches what they name", func(t *testing.T) {
		alloc := n.start(t, taskOf("narrow", nomad.JobTypeService, image(map[string]any{"egress": only}), inNetwork))
		n.await(t, alloc, "running")
		reaches(t, alloc, open, true)
		reaches(t, alloc, closed, false)
		reaches(t, alloc, denied, false)
	})
	t.Run("an LRP reaches what its security groups name", func(t *testing.T) {
		alloc := n.start(t, taskOf("groups", nomad.JobTypeService, map[string]any{"run_info": true}, inNetwork, withEgress(t, ref, open)))
		n.await(t, alloc, "running")
		n.awaitLog(t, alloc, "stdout", "ready")
		reaches(t, alloc, open, true)
		reaches(t, alloc, closed, false)
	})
	t.Run("rules without a network are refused by name", func(t *testing.T) {
		alloc := n.start(t, taskOf("host", nomad.JobTypeBatch, image(map[string]any{"egress": only})))
		if state := n.await(t, alloc, "dead"); !strings.Contains(describe(state), "egress: rules need a network namespace") {
			t.Error(describe(state))
		}
	})
}

// withEgress makes the run info of an LRP that may reach one port of the host.
func withEgress(t *testing.T, ref, port string) func(*nomad.Job, *nomad.Task) {
	t.Helper()
	var number uint32
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	lrp := &models.DesiredLRP{
		ProcessGuid: "guid-egress", RootFs: dockerURL(ref), LogSource: "APP", MemoryMb: 64,
		Action:      models.WrapAction(&models.RunAction{Path: "/bin/probe", Args: []string{"then", "--", "echo", "ready", "--", "sleep", "600"}, User: "vcap", LogSource: "APP"}),
		EgressRules: []*models.SecurityGroupRule{{Protocol: "tcp", Destinations: []string{hostSide}, Ports: []uint32{number}}},
	}
	raw, err := lrp.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return withRunInfo(t, driver.RunInfo{Kind: driver.KindLRP, GUID: "guid-egress", Definition: raw})
}

// rulesOf lists the nftables of an allocation's network namespace.
func rulesOf(t *testing.T, alloc *nomad.Allocation) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nsenter", "--net=/var/run/netns/"+alloc.ID, "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return string(out)
}
