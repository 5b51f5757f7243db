//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	consul "github.com/hashicorp/consul/api"

	"drover/bridge"
	"drover/bridge/nomad"
	"drover/bridge/translate"
	"drover/driver/drivertest"
	"drover/e2e/agent"
)

// bridgeNode is a node with Consul, the driver with one stack named probe, and a Runtime in front of it. Containers
// share the host's network, so that nothing of the machine's is changed.
type bridgeNode struct {
	*driverNode
	runtime *nomad.Runtime
	log     *recordedLog
}

func startBridgeNode(t *testing.T) *bridgeNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-e2e-") //nolint:usetesting // sockets need a short path that other users can traverse
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	n := &driverNode{dir: dir, plugin: filepath.Join(dir, "plugins", pluginName), shim: filepath.Join(dir, "plugins", "drover-shim")}
	n.build(t)
	n.mountImages(t, 512)
	stack := drivertest.RootFS(t)[0].Dir
	n.cluster, err = agent.Start(t.Context(), agent.Config{
		Dir: filepath.Join(dir, "agent"), PluginDir: filepath.Join(dir, "plugins"), LogLevel: "DEBUG",
		Plugins: map[string]string{
			pluginName: fmt.Sprintf("state_dir = %q\nimage_dir = %q\nstack \"probe\" {\n  rootfs = %q\n}\n", n.stateDir(), n.imageDir(), stack),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
	log := &recordedLog{}
	return &bridgeNode{driverNode: n, runtime: n.startRuntime(t, log), log: log}
}

// recordedLog keeps what the bridge logs.
type recordedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *recordedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *recordedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (n *driverNode) startRuntime(t *testing.T, log *recordedLog) *nomad.Runtime {
	t.Helper()
	runtime, err := nomad.New(nomad.Config{
		Client:  n.cluster.Nomad,
		Options: translate.Options{Network: "host"},
		Log:     slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), log), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- runtime.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the runtime ended with %v", err)
		}
	})
	return runtime
}

// probeLRP runs the probe program in the stack named probe.
func probeLRP(guid string, args ...string) *models.DesiredLRP {
	return &models.DesiredLRP{
		ProcessGuid: guid, Domain: "cf-apps", RootFs: models.PreloadedRootFS("probe"), Instances: 1,
		MemoryMb: 64, DiskMb: 32, CpuWeight: 1, MaxPids: 64, LogGuid: guid, LogSource: "CELL",
		Action: models.WrapAction(models.Codependent(&models.RunAction{
			Path: "/bin/probe", Args: args, User: "vcap", LogSource: "APP/PROC/WEB",
		})),
		MetricTags: map[string]*models.MetricTagValue{"source_id": {Static: guid}},
	}
}

// webLRP serves HTTP on a free port of the host and is checked there.
func webLRP(t *testing.T, guid string) *models.DesiredLRP {
	t.Helper()
	port := uint32(freePort(t))
	lrp := probeLRP(guid, "listen", fmt.Sprint(port))
	lrp.Ports = []uint32{port}
	lrp.CheckDefinition = &models.CheckDefinition{Checks: []*models.Check{{HttpCheck: &models.HTTPCheck{Port: port, Path: "/"}}}}
	lrp.StartTimeoutMs = 20000
	return lrp
}

// instance waits until instance 0 of an LRP is as wanted and returns it.
func (n *bridgeNode) instance(t *testing.T, guid, what string, good func(*models.ActualLRP) bool) *models.ActualLRP {
	t.Helper()
	var found *models.ActualLRP
	eventually(t, 60*time.Second, guid+" "+what, func() (bool, string) {
		actuals, err := n.runtime.ActualLRPs(t.Context(), bridge.ActualFilter{ProcessGUIDs: []string{guid}, Index: new(int32(0))})
		if err != nil || len(actuals) != 1 {
			return false, fmt.Sprint(actuals, err)
		}
		found = actuals[0]
		return good(found), fmt.Sprintf("%s, crashed %d times: %s %s", found.State, found.CrashCount, found.CrashReason, found.PlacementError)
	})
	return found
}

func isRunning(a *models.ActualLRP) bool { return a.State == models.ActualLRPStateRunning }

// services returns the instances of a service that pass their checks.
func (n *bridgeNode) services(t *testing.T, name string, passing bool) []*consul.ServiceEntry {
	t.Helper()
	entries, _, err := n.cluster.Consul.Health().Service(name, "", passing, nil)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
