package translate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"drover/driver"
)

// alloc makes an allocation of instance 0; changes may alter it.
func alloc(id string, created uint64, status string, changes ...func(*api.AllocationListStub)) *api.AllocationListStub {
	result := &api.AllocationListStub{
		ID: id, Name: "lrp-guid.lrp[0]", JobID: "lrp-guid", NodeID: "node", CreateIndex: created, ModifyIndex: created + 1,
		CreateTime: int64(created), ClientStatus: status, DesiredStatus: api.AllocDesiredStatusRun,
		TaskStates: map[string]*api.TaskState{},
	}
	for _, change := range changes {
		change(result)
	}
	return result
}

func task(state string, restarts uint64, events ...*api.TaskEvent) func(*api.AllocationListStub) {
	return func(a *api.AllocationListStub) {
		a.TaskStates[TaskName] = &api.TaskState{
			State: state, Failed: state == "dead", Restarts: restarts, Events: events, StartedAt: time.Unix(0, 7),
		}
	}
}

func index(i int) func(*api.AllocationListStub) {
	return func(a *api.AllocationListStub) { a.Name = fmt.Sprintf("lrp-guid.lrp[%d]", i) }
}

func unwanted(a *api.AllocationListStub) { a.DesiredStatus = api.AllocDesiredStatusStop }

func ports(list ...api.PortMapping) func(*api.AllocationListStub) {
	return func(a *api.AllocationListStub) {
		a.AllocatedResources = &api.AllocatedResources{Shared: api.AllocatedSharedResources{Ports: list}}
	}
}

func event(kind string, at int64, details ...string) *api.TaskEvent {
	result := &api.TaskEvent{Type: kind, Time: at, Details: map[string]string{}}
	for i := 0; i+1 < len(details); i += 2 {
		result.Details[details[i]] = details[i+1]
	}
	return result
}

func phase(name string, at int64, details ...string) *api.TaskEvent {
	return event(api.TaskDriverMessage, at, append(details, driver.AnnotationPhase, name)...)
}

// summary is what the tests compare of an instance.
func summary(a *models.ActualLRP) string {
	text := fmt.Sprintf("%d %s since %d", a.Index, a.State, a.Since)
	if !a.ActualLRPInstanceKey.Empty() {
		text += " " + a.InstanceGuid + "@" + a.CellId
	}
	if a.Address != "" {
		text += " " + a.Address + "/" + a.InstanceAddress
		for _, port := range a.Ports {
			text += fmt.Sprintf(" %d:%d", port.HostPort, port.ContainerPort)
		}
	}
	if a.CrashCount > 0 {
		text += fmt.Sprintf(" crashed %d times: %s", a.CrashCount, a.CrashReason)
	}
	if a.PlacementError != "" {
		text += " " + a.PlacementError
	}
	return fmt.Sprintf("%s tag %s.%d routable %t", text, a.ModificationTag.Epoch, a.ModificationTag.Index, a.GetRoutable())
}

type actualsTest struct {
	name   string
	allocs []*api.AllocationListStub
	want   []string
}

func actualsTests() []actualsTest {
	started := phase(driver.PhaseStarted, 20, driver.AnnotationInstanceGUID, "guid-1", driver.AnnotationAddress, "172.26.64.2")
	healthy := phase(driver.PhaseHealthy, 30, driver.AnnotationInstanceGUID, "guid-1")
	ended := phase(driver.PhaseEnded, 40, driver.AnnotationReason, "APP/PROC/WEB: Exited with status 3")
	terminated := event(api.TaskTerminated, 41, "exit_code", "3")
	web := ports(api.PortMapping{Label: "p8080", Value: 25000, To: 8080, HostIP: "10.0.0.1"}, api.PortMapping{Label: "p2222", Value: 25001, To: 2222, HostIP: "10.0.0.1"})
	return []actualsTest{
		{"an instance without an allocation is unclaimed with the placement error", nil,
			[]string{"0 UNCLAIMED since 5 no place tag epoch.11 routable false"}},
		{"an allocation on its way is claimed by its node",
			[]*api.AllocationListStub{alloc("a", 12, "pending")},
			[]string{"0 CLAIMED since 12 a@node tag epoch.13 routable false"}},
		{"a started container is claimed under its own guid until it is healthy",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, event(api.TaskReceived, 15), started, event(api.TaskStarted, 21)), web)},
			[]string{"0 CLAIMED since 21 guid-1@node tag epoch.13 routable false"}},
		{"a healthy container runs and has its ports in order",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, started, event(api.TaskStarted, 21), healthy), web)},
			[]string{"0 RUNNING since 30 guid-1@node 10.0.0.1/172.26.64.2 25001:2222 25000:8080 tag epoch.13 routable true"}},
		{"an event of the start that comes late does not undo health",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, started, healthy, event(api.TaskStarted, 31)), web)},
			[]string{"0 RUNNING since 30 guid-1@node 10.0.0.1/172.26.64.2 25001:2222 25000:8080 tag epoch.13 routable true"}},
		{"a container whose start is older than ten events runs",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, event(api.TaskSignaling, 50)), web)},
			[]string{"0 RUNNING since 7 a@node 10.0.0.1/10.0.0.1 25001:2222 25000:8080 tag epoch.13 routable true"}},
		{"an instance without ports has the address of its node",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, started, healthy))},
			[]string{"0 RUNNING since 30 guid-1@node address of node/172.26.64.2 tag epoch.13 routable true"}},
		{"a container that is started again is claimed and remembers its crash",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("pending", 1, started, healthy, ended, terminated, event(api.TaskRestarting, 42)))},
			[]string{"0 CLAIMED since 41 guid-1@node crashed 1 times: APP/PROC/WEB: Exited with status 3 tag epoch.13 routable false"}},
		{"a crash stays visible while the next container runs",
			[]*api.AllocationListStub{alloc("a", 12, "running", task("running", 1, ended, terminated, event(api.TaskRestarting, 42), phase(driver.PhaseStarted, 50, driver.AnnotationInstanceGUID, "guid-2"), phase(driver.PhaseHealthy, 60)), web)},
			[]string{"0 RUNNING since 60 guid-2@node 10.0.0.1/10.0.0.1 25001:2222 25000:8080 crashed 1 times: APP/PROC/WEB: Exited with status 3 tag epoch.13 routable true"}},
		{"an allocation that failed and waits for its replacement has crashed",
			[]*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 2, started, healthy, ended, terminated, event(api.TaskNotRestarting, 42)))},
			[]string{"0 CRASHED since 42 crashed 3 times: APP/PROC/WEB: Exited with status 3 tag epoch.13 routable false"}},
		{"a replacement that has no place is unclaimed again",
			[]*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 2, started, healthy, ended, terminated), func(a *api.AllocationListStub) { a.NextAllocation = "b" })},
			[]string{"0 UNCLAIMED since 41 crashed 3 times: APP/PROC/WEB: Exited with status 3 no place tag epoch.13 routable false"}},
		{"crashes of earlier allocations count",
			[]*api.AllocationListStub{
				alloc("b", 20, "pending"),
				alloc("a", 12, "failed", task("dead", 2, ended, terminated), func(a *api.AllocationListStub) { a.NextAllocation = "b" }),
			},
			[]string{"0 CLAIMED since 20 b@node crashed 3 times: APP/PROC/WEB: Exited with status 3 tag epoch.21 routable false"}},
		{"a container that could not be made has crashed with the driver's reason",
			[]*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 0, event(api.TaskDriverFailure, 40, "driver_error", "image x: not found"), event(api.TaskNotRestarting, 42)))},
			[]string{"0 CRASHED since 42 crashed 1 times: failed to create container: image x: not found tag epoch.13 routable false"}},
		{"an allocation that shall stop counts while nothing replaces it",
			[]*api.AllocationListStub{alloc("a", 12, "running", unwanted, task("running", 0, started, healthy))},
			[]string{"0 RUNNING since 30 guid-1@node address of node/172.26.64.2 tag epoch.13 routable true"}},
		{"a replacement counts before what it replaces",
			[]*api.AllocationListStub{alloc("b", 20, "pending"), alloc("a", 12, "running", unwanted, task("running", 0, started, healthy))},
			[]string{"0 CLAIMED since 20 b@node tag epoch.21 routable false"}},
		{"an instance beyond the number is listed until it has stopped",
			[]*api.AllocationListStub{alloc("b", 13, "running", index(1), unwanted), alloc("c", 13, "complete", index(2), unwanted)},
			[]string{"0 UNCLAIMED since 5 no place tag epoch.11 routable false", "1 CLAIMED since 13 b@node tag epoch.14 routable false"}},
		{"allocations of an earlier LRP of the same guid do not count",
			[]*api.AllocationListStub{alloc("a", 9, "running", task("running", 0, started, healthy))},
			[]string{"0 UNCLAIMED since 5 no place tag epoch.11 routable false"}},
	}
}

func TestActuals(t *testing.T) {
	for _, test := range actualsTests() {
		t.Run(test.name, func(t *testing.T) {
			lrp := &models.DesiredLRP{ProcessGuid: "guid", Domain: "cf-apps", Instances: 1, ModificationTag: &models.ModificationTag{Epoch: "epoch"}}
			var got []string
			for _, actual := range Actuals(Instances{
				LRP: lrp, Since: 5, CreateIndex: 10, ModifyIndex: 11, Allocations: test.allocs, PlacementError: "no place",
				NodeAddress: func(id string) string { return "address of " + id },
			}) {
				got = append(got, summary(actual))
				if err := actual.Validate(); err != nil {
					t.Errorf("instance %d is not valid: %v", actual.Index, err)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("instances (-want +got):\n%s", diff)
			}
		})
	}
}

func TestActuals_fillsInMetricTagsAndInternalRoutes(t *testing.T) {
	lrp := &models.DesiredLRP{
		ProcessGuid: "guid", Domain: "d", Instances: 1, Routes: fullLRP().Routes,
		MetricTags: map[string]*models.MetricTagValue{
			"source_id": {Static: "app"}, "instance": {Dynamic: models.MetricTagDynamicValueIndex}, "guid": {Dynamic: models.MetricTagDynamicValueInstanceGuid},
		},
	}
	internal := []byte(`[{"hostname": "a.apps.internal"}]`)
	(*lrp.Routes)["internal-router"] = new(json.RawMessage(internal))
	actuals := Actuals(Instances{LRP: lrp, Allocations: []*api.AllocationListStub{alloc("a", 1, "pending")}})
	want := map[string]string{"source_id": "app", "instance": "0", "guid": "a"}
	if diff := cmp.Diff(want, actuals[0].MetricTags); diff != "" {
		t.Errorf("metric tags (-want +got):\n%s", diff)
	}
	if routes := actuals[0].ActualLrpInternalRoutes; len(routes) != 1 || routes[0].Hostname != "a.apps.internal" {
		t.Errorf("internal routes are %v", routes)
	}
}

func TestTaskOf(t *testing.T) {
	started := event(api.TaskStarted, 20)
	tests := []struct {
		name   string
		allocs []*api.AllocationListStub
		result bool
		want   TaskState
	}{
		{"a task without an allocation is pending", nil, true, TaskState{State: models.Task_Pending}},
		{"a task whose container is being made is pending", []*api.AllocationListStub{alloc("a", 12, "pending", task("pending", 0, event(api.TaskReceived, 15)))}, true, TaskState{State: models.Task_Pending}},
		{"a started task runs on its node", []*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, phase(driver.PhaseStarted, 19), started))}, true, TaskState{State: models.Task_Running, CellID: "node"}},
		{"a task that ended well has its result", []*api.AllocationListStub{alloc("a", 12, "complete", task("dead", 0, started, phase(driver.PhaseEnded, 30, driver.AnnotationResult, "eyJhIjoxfQ=="), event(api.TaskTerminated, 31)))}, true,
			TaskState{State: models.Task_Completed, CellID: "node", Result: `{"a":1}`}},
		{"the driver's word counts before nomad's", []*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, started, phase(driver.PhaseEnded, 30)))}, false,
			TaskState{State: models.Task_Completed, CellID: "node"}},
		{"a task that failed has exactly the driver's reason", []*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 0, started, phase(driver.PhaseEnded, 30, driver.AnnotationReason, "STG: Exited with status 222"), event(api.TaskTerminated, 31, "exit_code", "222")))}, true,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "STG: Exited with status 222"}},
		{"a task whose driver said nothing has its exit status", []*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 0, started, event(api.TaskTerminated, 31, "exit_code", "137", "oom_killed", "true")))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "Exited with status 137 (out of memory)"}},
		{"a container that could not be made fails the task", []*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 0, event(api.TaskDriverFailure, 30, "driver_error", "rpc error: code = FailedPrecondition desc = image x: not found"), event(api.TaskNotRestarting, 31)))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "failed to create container: image x: not found"}},
		{"a template that could not be rendered fails the task", []*api.AllocationListStub{alloc("a", 12, "failed", task("dead", 0, event(api.TaskSetupFailure, 30, "setup_error", "template failed")))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "failed to create container: template failed"}},
		{"an end without a word has no result to give", []*api.AllocationListStub{alloc("a", 12, "complete", task("dead", 0))}, true,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "failed to fetch result"}},
		{"an end without a word is well when no result was asked for", []*api.AllocationListStub{alloc("a", 12, "complete", task("dead", 0))}, false,
			TaskState{State: models.Task_Completed, CellID: "node"}},
		{"a lost node fails the task", []*api.AllocationListStub{alloc("a", 12, "lost", task("running", 0, started))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "cell disappeared before completion"}},
		{"a task that was stopped from outside fails", []*api.AllocationListStub{alloc("a", 12, "complete", unwanted, task("dead", 0, started))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "cell disappeared before completion"}},
		{"a task that was killed has not succeeded, whatever it managed to say", []*api.AllocationListStub{alloc("a", 12, "running", task("running", 0, started, event(api.TaskKilling, 25), phase(driver.PhaseEnded, 30)))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "cell disappeared before completion"}},
		{"a task that was cut off is not run twice", []*api.AllocationListStub{alloc("b", 20, "running", task("running", 0, started)), alloc("a", 12, "lost", unwanted, task("running", 0, started))}, false,
			TaskState{State: models.Task_Completed, CellID: "node", Failed: true, Reason: "cell disappeared before completion"}},
		{"a task whose node was lost before its start waits for another", []*api.AllocationListStub{alloc("b", 20, "pending"), alloc("a", 12, "lost", unwanted, task("pending", 0))}, false,
			TaskState{State: models.Task_Pending}},
		{"allocations of an earlier task of the same guid do not count", []*api.AllocationListStub{alloc("a", 9, "complete", task("dead", 0))}, false, TaskState{State: models.Task_Pending}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, TaskOf(test.allocs, 10, test.result)); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlacement(t *testing.T) {
	none := map[string]int{"${meta.drover_placement_tags} is_not_set ": 1}
	tests := []struct {
		name   string
		metric *api.AllocationMetric
		want   string
	}{
		{"nothing is wrong", nil, ""},
		{"resources are missing, in order", &api.AllocationMetric{DimensionExhausted: map[string]int{"memory": 2, "disk": 1}}, "insufficient resources: disk, memory"},
		{"what Diego does not know is containers", &api.AllocationMetric{DimensionExhausted: map[string]int{"cpu": 1, "network: port collision": 1}}, "insufficient resources: containers"},
		{"no node has the stack", &api.AllocationMetric{ConstraintFiltered: map[string]int{"${attr.driver.drover.stack.x} is_set ": 1, "computed class ineligible": 3}}, "found no compatible cell for required rootfs"},
		{"no node has the driver", &api.AllocationMetric{ConstraintFiltered: map[string]int{"missing drivers": 1}}, "found no compatible cell for required rootfs"},
		{"no node has the tag", &api.AllocationMetric{ConstraintFiltered: map[string]int{"${meta.drover_placement_tags} set_contains secure": 1}}, `found no compatible cell with placement tag "secure"`},
		{"no node has the tags", &api.AllocationMetric{ConstraintFiltered: map[string]int{"${meta.drover_placement_tags} set_contains b": 1, "${meta.drover_placement_tags} set_contains a": 1}}, `found no compatible cell with placement tags "a", "b"`},
		{"all nodes have tags", &api.AllocationMetric{ConstraintFiltered: none}, "found no compatible cell with no placement tags"},
		{"there is no node", &api.AllocationMetric{}, "unable to communicate to compatible cells"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Placement(test.metric); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestSecrets_areChunked(t *testing.T) {
	lrp := fullLRP()
	for i := range 4000 {
		lrp.EnvironmentVariables = append(lrp.EnvironmentVariables, &models.EnvironmentVariable{Name: fmt.Sprint(i), Value: noise(i, 24)})
	}
	work, err := LRP(lrp, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(work.Secrets) < 2 {
		t.Fatalf("got %d secrets, want more for this test", len(work.Secrets))
	}
	template := *work.Job.TaskGroups[0].Tasks[0].Templates[0].EmbeddedTmpl
	last := -1
	for i, secret := range work.Secrets {
		if len(secret.Text) > maxChunk {
			t.Errorf("secret %d has %d bytes", i, len(secret.Text))
		}
		at := strings.Index(template, fmt.Sprintf("nomadVar %q", secret.Path))
		if at <= last {
			t.Errorf("the template does not read %s in its turn: %s", secret.Path, template)
		}
		last = at
	}
	if got := readSecrets(t, work.Secrets).text; got != RunInfoLRP(lrp).String() {
		t.Error("the run info is not what was encoded")
	}
}

func TestSecrets_tooLargeAreRefused(t *testing.T) {
	lrp := fullLRP()
	for i := range 8000 {
		lrp.EnvironmentVariables = append(lrp.EnvironmentVariables, &models.EnvironmentVariable{Name: fmt.Sprint(i), Value: noise(i, 64)})
	}
	_, err := LRP(lrp, Options{})
	if models.ConvertError(err).GetType() != models.Error_InvalidRequest || !strings.Contains(err.Error(), "run info too large") {
		t.Errorf("got %v, want an InvalidRequest about the size", err)
	}
}

func TestRevise_changesOnlyCountAndServices(t *testing.T) {
	lrp := fullLRP()
	work, err := LRP(lrp, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// A job of another version of Drover: its template and meta must stay.
	work.Job.Meta[MetaSchema] = "0"
	work.Job.TaskGroups[0].Tasks[0].Templates[0].Perms = new("0400")
	changed := fullLRP()
	changed.Instances = 7
	changed.Routes = nil
	changed.EnvironmentVariables = nil
	before := roundTrip(t, work.Job)
	if err := Revise(work.Job, changed, Options{}); err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff(before, roundTrip(t, work.Job))
	for _, want := range []string{"float64(7)", `"http:a.example.com"`} {
		if !strings.Contains(diff, want) {
			t.Errorf("%s is not among the changes:\n%s", want, diff)
		}
	}
	if lines := strings.Count(diff, "\n-") + strings.Count(diff, "\n+"); lines != 3 {
		t.Errorf("%d lines have changed, want three:\n%s", lines, diff)
	}
}

func TestTruncate(t *testing.T) {
	if got := truncate(strings.Repeat("ä", 1000)); len(got) > maxText || !strings.HasSuffix(got, truncated) || !strings.HasPrefix(got, "ää") {
		t.Errorf("got %d bytes that end in %q", len(got), got[len(got)-20:])
	}
}

// noise returns text that does not compress well, always the same for a seed.
func noise(seed, length int) string {
	state := uint32(seed)*2654435761 + 1
	text := make([]byte, length)
	for i := range text {
		state = state*1664525 + 1013904223
		text[i] = 'A' + byte(state>>24)%58
	}
	return string(text)
}

func TestActuals_portsAreInTheOrderOfTheLRP(t *testing.T) {
	healthy := alloc("a", 12, "running", task("running", 0, phase(driver.PhaseHealthy, 20)),
		ports(api.PortMapping{Label: "p2222", Value: 20001, To: 2222}, api.PortMapping{Label: "p9090", Value: 20002, To: 9090}, api.PortMapping{Label: "p8080", Value: 20003, To: 8080}))
	actuals := Actuals(Instances{
		LRP:         &models.DesiredLRP{ProcessGuid: "guid", Instances: 1, Ports: []uint32{9090, 8080, 2222}},
		Allocations: []*api.AllocationListStub{healthy},
	})
	var got []uint32
	for _, port := range actuals[0].Ports {
		got = append(got, port.ContainerPort)
	}
	if diff := cmp.Diff([]uint32{9090, 8080, 2222}, got); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}
