//go:build e2e

package nomad_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"drover/bridge"
	"drover/bridge/bridgetest"
	"drover/bridge/nomad"
	"drover/bridge/translate"
	"drover/driver"
	"drover/e2e/agent"
)

const patience = 30 * time.Second

// TestRuntime tells what the contract cannot: how jobs, variables and other bridges are dealt with.
func TestRuntime(t *testing.T) {
	cluster := startCluster(t)
	tests := []struct {
		name string
		run  func(t *testing.T, cluster *agent.Cluster)
	}{
		{"an update restarts nothing and changes services in place", testUpdateInPlace},
		{"run info is rendered where only the driver reads it", testPrivateRunInfo},
		{"an LRP that was half desired is not listed and can be desired again", testHalfDesired},
		{"a half desired LRP that nobody asks for again is removed", testAbandoned},
		{"several bridges serve the same cluster", testReplicas},
		{"of many that desire the same LRP one wins", testRace},
		{"what cannot be placed says why", testPlacementError},
		{"a Task that cannot be placed fails in the end", testUnplaceableTask},
		{"a job that somebody removed is registered again", testRestoredJob},
		{"a job that Nomad refuses leaves nothing behind", testRefusedJob},
		{"nothing is left of removed LRPs and deleted Tasks", testNothingLeft},
		{"a Nomad that is away is an error, and is found again", testAway},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clear(t, cluster.Nomad)
			test.run(t, cluster)
		})
	}
}

// runnable makes the job of an LRP one that this node can run: the same job but for its driver.
func runnable(t *testing.T, client *api.Client, id string) {
	t.Helper()
	job, _, err := client.Jobs().Info(id, nil)
	must(t, err)
	job.Constraints = nil
	task := job.TaskGroups[0].Tasks[0]
	task.Driver = "raw_exec"
	task.Config = map[string]any{"command": "sleep", "args": []string{"600"}}
	_, _, err = client.Jobs().Register(job, nil)
	must(t, err)
}

// running waits for the allocations of a job to run and returns them by index.
func running(t *testing.T, client *api.Client, id string, count int) []*api.AllocationListStub {
	t.Helper()
	var allocs []*api.AllocationListStub
	eventually(t, fmt.Sprintf("%d allocations of %s run", count, id), func() bool {
		list, _, err := client.Jobs().Allocations(id, false, nil)
		must(t, err)
		allocs = slices.DeleteFunc(list, func(a *api.AllocationListStub) bool {
			return a.ClientStatus != api.AllocClientStatusRunning || a.DesiredStatus != api.AllocDesiredStatusRun
		})
		return len(allocs) == count
	})
	slices.SortFunc(allocs, func(a, b *api.AllocationListStub) int { return strings.Compare(a.Name, b.Name) })
	return allocs
}

func testUpdateInPlace(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtime := startRuntime(t, cluster.Nomad)
	lrp := bridgetest.LRP("in-place")
	lrp.Ports = nil
	lrp.Instances = 1
	must(t, runtime.DesireLRP(t.Context(), lrp))
	id := translate.LRPJobID("in-place")
	runnable(t, cluster.Nomad, id)
	before := running(t, cluster.Nomad, id, 1)[0]

	update := &models.DesiredLRPUpdate{MetricTags: map[string]*models.MetricTagValue{"source_id": {Static: "other"}}}
	update.SetAnnotation("2.0")
	job, _, err := cluster.Nomad.Jobs().Info(id, nil)
	must(t, err)
	must(t, runtime.UpdateLRP(t.Context(), "in-place", update))
	same, _, err := cluster.Nomad.Jobs().Info(id, nil)
	must(t, err)
	if *same.JobModifyIndex != *job.JobModifyIndex {
		t.Error("annotation and metric tags have touched the job")
	}

	route := json.RawMessage(`[{"hostnames":["new.example.com"],"port":8080}]`)
	update = &models.DesiredLRPUpdate{Routes: &models.Routes{"cf-router": &route}}
	update.SetInstances(2)
	must(t, runtime.UpdateLRP(t.Context(), "in-place", update))
	after := running(t, cluster.Nomad, id, 2)
	if after[0].ID != before.ID {
		t.Errorf("allocation %s was replaced by %s", before.ID, after[0].ID)
	}
	state := after[0].TaskStates[translate.TaskName]
	if state.Restarts != 0 || !state.StartedAt.Equal(before.TaskStates[translate.TaskName].StartedAt) {
		t.Errorf("the task was restarted: %+v", state)
	}
	down := &models.DesiredLRPUpdate{}
	down.SetInstances(1)
	must(t, runtime.UpdateLRP(t.Context(), "in-place", down))
	if left := running(t, cluster.Nomad, id, 1)[0]; left.ID != before.ID {
		t.Errorf("scaling down stopped the first instance and not the last")
	}
	eventually(t, "one instance is listed", func() bool {
		actuals, err := runtime.ActualLRPs(t.Context(), bridge.ActualFilter{ProcessGUIDs: []string{"in-place"}})
		must(t, err)
		return len(actuals) == 1 && actuals[0].State == models.ActualLRPStateClaimed && actuals[0].InstanceGuid == before.ID
	})
	must(t, runtime.RetireActualLRP(t.Context(), &models.ActualLRPKey{ProcessGuid: "in-place", Domain: "cf-apps"}))
	eventually(t, "another allocation takes the retired one's place", func() bool {
		actuals, err := runtime.ActualLRPs(t.Context(), bridge.ActualFilter{ProcessGUIDs: []string{"in-place"}})
		must(t, err)
		return len(actuals) == 1 && actuals[0].State == models.ActualLRPStateClaimed && actuals[0].InstanceGuid != before.ID
	})
}

func testPrivateRunInfo(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtime := startRuntime(t, cluster.Nomad)
	lrp := bridgetest.LRP("private")
	lrp.Instances = 1
	lrp.Ports = nil
	for i := range 5000 {
		// Enough for two variables, in an order that does not compress well.
		lrp.EnvironmentVariables = append(lrp.EnvironmentVariables, &models.EnvironmentVariable{
			Name: fmt.Sprintf("N%d", i), Value: fmt.Sprintf("%x", uint64(i+1)*0x9e3779b97f4a7c15),
		})
	}
	must(t, runtime.DesireLRP(t.Context(), lrp))
	runnable(t, cluster.Nomad, translate.LRPJobID("private"))
	alloc := running(t, cluster.Nomad, translate.LRPJobID("private"), 1)[0]
	dir := filepath.Join(cluster.DataDir(), "alloc", alloc.ID, translate.TaskName)
	path := filepath.Join(dir, driver.RunInfoFile)
	stat, err := os.Stat(path)
	must(t, err)
	if stat.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %s", driver.RunInfoFile, stat.Mode())
	}
	text, err := os.ReadFile(path)
	must(t, err)
	if len(text) < 61<<10 {
		t.Errorf("run info has %d bytes, too few for this test", len(text))
	}
	info, err := driver.DecodeRunInfo(text)
	must(t, err)
	got := &models.DesiredLRP{}
	must(t, got.Unmarshal(info.Definition))
	if diff := cmp.Diff(translate.RunInfoLRP(lrp).String(), got.String()); diff != "" || info.GUID != "private" {
		t.Errorf("run info of %s (-want +got):\n%s", info.GUID, diff)
	}
	reader, err := cluster.Nomad.AllocFS().Cat(&api.Allocation{ID: alloc.ID, NodeID: alloc.NodeID}, translate.TaskName+"/"+driver.RunInfoFile, nil)
	if err == nil {
		defer func() { _ = reader.Close() }()
		shown, readErr := io.ReadAll(reader)
		if readErr == nil && strings.Contains(string(shown), string(text[:64])) {
			t.Error("nomad alloc fs shows the run info")
		}
	}
}

// halfDesired writes the record that a bridge leaves which dies right after its claim.
func halfDesired(t *testing.T, client *api.Client, guid string, at time.Time) {
	t.Helper()
	record := fmt.Sprintf(`{"ready": false, "owner": "another", "process_guid": %q, "domain": "cf-apps", "updated_at": %d}`, guid, at.UnixNano())
	_, _, err := client.Variables().Create(&api.Variable{Path: "drover/lrps/" + guid, Items: api.VariableItems{"record": record}}, nil)
	must(t, err)
}

func testHalfDesired(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	halfDesired(t, cluster.Nomad, "old", time.Now().Add(-time.Minute))
	halfDesired(t, cluster.Nomad, "fresh", time.Now())
	runtime := startRuntime(t, cluster.Nomad)
	infos, err := runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
	must(t, err)
	if len(infos) != 0 {
		t.Errorf("half desired LRPs are listed: %v", infos)
	}
	must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("old")))
	if err := runtime.DesireLRP(t.Context(), bridgetest.LRP("fresh")); !errors.Is(err, models.ErrResourceConflict) {
		t.Errorf("taking over what another bridge is about to do gave %v, want a conflict", err)
	}
	infos, err = runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
	must(t, err)
	if len(infos) != 1 || infos[0].Instances != 2 {
		t.Errorf("got %v, want the LRP that was completed", infos)
	}
}

func testAbandoned(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	halfDesired(t, cluster.Nomad, "old", time.Now().Add(-time.Hour))
	startRuntime(t, cluster.Nomad)
	eventually(t, "the record is gone", func() bool {
		list, _, err := cluster.Nomad.Variables().PrefixList("drover/lrps", nil)
		must(t, err)
		return len(list) == 0
	})
}

func testReplicas(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	one, two := startRuntime(t, cluster.Nomad), startRuntime(t, cluster.Nomad)
	must(t, one.DesireLRP(t.Context(), bridgetest.LRP("shared")))
	if err := two.DesireLRP(t.Context(), bridgetest.LRP("shared")); !errors.Is(err, models.ErrResourceExists) {
		t.Errorf("the other bridge desires it again: %v", err)
	}
	eventually(t, "the other bridge lists it", func() bool {
		infos, err := two.SchedulingInfos(t.Context(), bridge.LRPFilter{})
		must(t, err)
		return len(infos) == 1
	})
	update := &models.DesiredLRPUpdate{}
	update.SetAnnotation("of two")
	must(t, two.UpdateLRP(t.Context(), "shared", update))
	scale := &models.DesiredLRPUpdate{}
	scale.SetInstances(3)
	must(t, one.UpdateLRP(t.Context(), "shared", scale))
	lrp, err := one.DesiredLRP(t.Context(), "shared")
	must(t, err)
	if lrp.Annotation != "of two" || lrp.Instances != 3 || lrp.ModificationTag.Index != 2 {
		t.Errorf("one update overwrote the other: annotation %q, %d instances, index %d", lrp.Annotation, lrp.Instances, lrp.ModificationTag.Index)
	}
	must(t, two.RemoveLRP(t.Context(), "shared"))
	eventually(t, "the first bridge knows that it is gone", func() bool {
		_, err := one.DesiredLRP(t.Context(), "shared")
		return errors.Is(err, models.ErrResourceNotFound)
	})
	must(t, one.DesireTask(t.Context(), "task", "cf-tasks", bridgetest.Task()))
	eventually(t, "the other bridge knows the task", func() bool {
		_, err := two.Task(t.Context(), "task")
		return err == nil
	})
	must(t, two.CancelTask(t.Context(), "task"))
	must(t, two.ResolvingTask(t.Context(), "task"))
	if err := one.ResolvingTask(t.Context(), "task"); models.ConvertError(err).GetType() != models.Error_InvalidStateTransition {
		t.Errorf("both bridges claim the result: %v", err)
	}
}

func testRace(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtimes := []*nomad.Runtime{startRuntime(t, cluster.Nomad), startRuntime(t, cluster.Nomad)}
	var won atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			err := runtimes[i%2].DesireLRP(t.Context(), bridgetest.LRP("raced"))
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, models.ErrResourceExists), errors.Is(err, models.ErrResourceConflict):
			default:
				t.Errorf("desire: %v", err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d calls succeeded, want 1", won.Load())
	}
	lrp, err := runtimes[0].DesiredLRP(t.Context(), "raced")
	must(t, err)
	if lrp.Instances != 2 {
		t.Errorf("got %v", lrp)
	}
}

func testPlacementError(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtime := startRuntime(t, cluster.Nomad)
	must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("nowhere")))
	eventually(t, "both instances have the placement error", func() bool {
		actuals, err := runtime.ActualLRPs(t.Context(), bridge.ActualFilter{})
		must(t, err)
		return len(actuals) == 2 && !slices.ContainsFunc(actuals, func(a *models.ActualLRP) bool {
			return a.State != models.ActualLRPStateUnclaimed || a.PlacementError != "found no compatible cell for required rootfs"
		})
	})
}

// clock is a clock that a test can put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time              { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) putForward(by time.Duration) { c.ahead.Add(int64(by)) }

func testUnplaceableTask(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	var now clock
	runtime := startRuntimeAt(t, cluster.Nomad, now.now)
	must(t, runtime.DesireTask(t.Context(), "nowhere", "cf-tasks", bridgetest.Task()))
	hints := runtime.Completions(t.Context())
	now.putForward(2 * time.Minute)
	select {
	case <-hints:
	case <-time.After(patience):
		t.Fatal("there was no hint")
	}
	eventually(t, "the task has failed", func() bool {
		task, err := runtime.Task(t.Context(), "nowhere")
		must(t, err)
		return task.State == models.Task_Completed && task.Failed && task.FailureReason == "found no compatible cell for required rootfs"
	})
}

func testRestoredJob(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	var now clock
	runtime := startRuntimeAt(t, cluster.Nomad, now.now)
	must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("lost")))
	_, _, err := cluster.Nomad.Jobs().Deregister(translate.LRPJobID("lost"), true, nil)
	must(t, err)
	now.putForward(time.Minute)
	eventually(t, "the job is there again", func() bool {
		job, _, err := cluster.Nomad.Jobs().Info(translate.LRPJobID("lost"), nil)
		return err == nil && *job.TaskGroups[0].Count == 2
	})
}

func testRefusedJob(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtime := startRuntime(t, cluster.Nomad)
	lrp := bridgetest.LRP("refused")
	lrp.Ports = []uint32{8080, 8080}
	err := runtime.DesireLRP(t.Context(), lrp)
	if models.ConvertError(err).GetType() != models.Error_InvalidRequest {
		t.Errorf("got %v, want InvalidRequest", err)
	}
	wantNothing(t, cluster.Nomad)
}

func testNothingLeft(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtime := startRuntime(t, cluster.Nomad)
	must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("gone")))
	must(t, runtime.DesireTask(t.Context(), "gone", "cf-tasks", bridgetest.Task()))
	must(t, runtime.RemoveLRP(t.Context(), "gone"))
	must(t, runtime.CancelTask(t.Context(), "gone"))
	must(t, runtime.ResolvingTask(t.Context(), "gone"))
	must(t, runtime.DeleteTask(t.Context(), "gone"))
	wantNothing(t, cluster.Nomad)
}

func wantNothing(t *testing.T, client *api.Client) {
	t.Helper()
	variables, _, err := client.Variables().List(nil)
	must(t, err)
	for _, variable := range variables {
		t.Errorf("variable %s is left", variable.Path)
	}
	jobs, _, err := client.Jobs().List(nil)
	must(t, err)
	for _, job := range jobs {
		t.Errorf("job %s is left", job.ID)
	}
}

func testAway(t *testing.T, cluster *agent.Cluster) {
	t.Helper()
	runtime := startRuntime(t, cluster.Nomad)
	must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("there")))
	must(t, cluster.StopNomad(t.Context()))
	eventually(t, "lists fail", func() bool {
		_, err := runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
		return err != nil
	})
	began := time.Now()
	_, err := runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
	var known *models.Error
	if err == nil || errors.As(err, &known) {
		t.Errorf("got %v, want an error that is not Diego's", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s to say so", took)
	}
	must(t, cluster.RestartNomad(t.Context()))
	eventually(t, "the LRP is listed again", func() bool {
		infos, err := runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
		return err == nil && len(infos) == 1
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s, but not: %s", patience, what)
		case <-tick.C:
		}
	}
}
