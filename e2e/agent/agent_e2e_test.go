//go:build e2e

package agent_test

import (
	"context"
	"testing"
	"time"

	"drover/e2e/agent"

	nomad "github.com/hashicorp/nomad/api"
)

func TestCluster_runsAJobAndSurvivesARestart(t *testing.T) {
	cluster, err := agent.Start(t.Context(), agent.Config{
		Dir:   t.TempDir(),
		Extra: "plugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n",
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
	job := nomad.NewServiceJob("sleeper", "sleeper", "global", 50).AddTaskGroup(
		nomad.NewTaskGroup("g", 1).AddTask(nomad.NewTask("t", "raw_exec").SetConfig("command", "sleep").SetConfig("args", []string{"600"})))
	if _, _, err := cluster.Nomad.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	if err := cluster.StopNomad(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cluster.RestartNomad(t.Context()); err != nil {
		t.Fatal(err)
	}
	jobs, _, err := cluster.Nomad.Jobs().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(jobs) != 1 {
		t.Errorf("jobs after a restart = %d, want 1", len(jobs))
	}
}
