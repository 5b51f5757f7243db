//go:build e2e

package nomad_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"drover/bridge"
	"drover/bridge/bridgetest"
	"drover/bridge/nomad"
	"drover/bridge/translate"
	"drover/e2e/agent"
)

func startCluster(t *testing.T) *agent.Cluster {
	t.Helper()
	cluster, err := agent.Start(t.Context(), agent.Config{
		Dir: t.TempDir(), NoConsul: true, Extra: "plugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := cluster.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// startRuntime runs a Runtime until the test ends.
func startRuntime(t *testing.T, client *api.Client) *nomad.Runtime {
	t.Helper()
	return startRuntimeAt(t, client, time.Now)
}

func startRuntimeAt(t *testing.T, client *api.Client, now func() time.Time) *nomad.Runtime {
	t.Helper()
	runtime, err := nomad.New(nomad.Config{
		Client:  client,
		Options: translate.Options{Services: translate.ServicesNomad, Network: "host"},
		Now:     now,
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
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
			t.Error(err)
		}
	})
	return runtime
}

// clear removes every job and variable.
func clear(t *testing.T, client *api.Client) {
	t.Helper()
	jobs, _, err := client.Jobs().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range jobs {
		if _, _, err := client.Jobs().Deregister(job.ID, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	variables, _, err := client.Variables().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range variables {
		if _, err := client.Variables().Delete(variable.Path, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRuntime_keepsTheContract(t *testing.T) {
	cluster := startCluster(t)
	bridgetest.Contract(t, func(t *testing.T) bridge.Runtime {
		t.Helper()
		clear(t, cluster.Nomad)
		return startRuntime(t, cluster.Nomad)
	})
}
