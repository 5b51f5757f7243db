//go:build e2e

package e2e_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	nomad "github.com/hashicorp/nomad/api"

	"drover/bridge"
	"drover/bridge/translate"
)

// TestBridge runs LRPs and Tasks for real and looks at them as Cloud Controller would.
func TestBridge(t *testing.T) {
	n := startBridgeNode(t)
	t.Run("runs an LRP that answers and is found through Consul", func(t *testing.T) { checkWebLRP(t, n) })
	t.Run("changes routes without a restart", func(t *testing.T) { checkRoutes(t, n) })
	t.Run("starts again what crashes and says why", func(t *testing.T) { checkCrash(t, n) })
	t.Run("shows an LRP that never becomes healthy", func(t *testing.T) { checkNeverHealthy(t, n) })
	t.Run("says why an image cannot be had", func(t *testing.T) { checkMissingImage(t, n) })
	t.Run("says what resources are missing", func(t *testing.T) { checkPlacement(t, n) })
	t.Run("runs again what was removed a moment ago", func(t *testing.T) { checkRemoveAndDesire(t, n) })
	t.Run("gives the result of a Task", func(t *testing.T) { checkTaskResult(t, n) })
	t.Run("gives the reason of a failed Task", func(t *testing.T) { checkTaskFailure(t, n) })
	t.Run("cancels a running Task", func(t *testing.T) { checkTaskCancel(t, n) })
	t.Run("fails a Task that is stopped from outside", func(t *testing.T) { checkTaskCutOff(t, n) })
	t.Run("forgets nothing when it is started again", func(t *testing.T) { checkBridgeRestart(t, n) })
}

func (n *bridgeNode) desire(t *testing.T, lrp *models.DesiredLRP) {
	t.Helper()
	if err := n.runtime.DesireLRP(t.Context(), lrp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.purge(t, translate.LRPJobID(lrp.ProcessGuid)) })
}

// fetch returns the body of a successful answer.
func fetch(t *testing.T, url string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 5 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return string(body), err
}

func checkWebLRP(t *testing.T, n *bridgeNode) {
	t.Helper()
	lrp := webLRP(t, "web")
	n.desire(t, lrp)
	actual := n.instance(t, "web", "does not run", isRunning)
	if err := actual.Validate(); err != nil {
		t.Errorf("the instance is not valid: %v", err)
	}
	if actual.Address != "127.0.0.1" || len(actual.Ports) != 1 || actual.Ports[0].ContainerPort != lrp.Ports[0] || !actual.GetRoutable() {
		t.Errorf("the instance is at %s %v, routable %t", actual.Address, actual.Ports, actual.GetRoutable())
	}
	body, err := fetch(t, fmt.Sprintf("http://%s:%d/env", actual.Address, actual.Ports[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CF_INSTANCE_GUID=" + actual.InstanceGuid, "INSTANCE_INDEX=0", fmt.Sprintf("CF_INSTANCE_PORT=%d", lrp.Ports[0])} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("%s is not in the environment:\n%s", want, body)
		}
	}
	eventually(t, 20*time.Second, "the service does not pass its check", func() (bool, string) {
		return len(n.services(t, "cf-web", true)) == 1, fmt.Sprint(n.services(t, "cf-web", false))
	})
	service := n.services(t, "cf-web", true)[0].Service
	if service.Address != "127.0.0.1" || service.Port != int(lrp.Ports[0]) || service.Meta["drover_guid"] != "web" || service.Meta["drover_index"] != "0" {
		t.Errorf("the service is %s:%d with meta %v", service.Address, service.Port, service.Meta)
	}
	if err := n.runtime.RemoveLRP(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	var gone time.Time
	eventually(t, 20*time.Second, "the instance still answers", func() (bool, string) {
		_, err := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", lrp.Ports[0]))
		gone = time.Now()
		return err != nil, ""
	})
	eventually(t, time.Second-time.Since(gone), "the service is still there", func() (bool, string) {
		left := n.services(t, "cf-web", false)
		return len(left) == 0, fmt.Sprint(left)
	})
}

func checkRoutes(t *testing.T, n *bridgeNode) {
	t.Helper()
	lrp := webLRP(t, "routes")
	n.desire(t, lrp)
	before := n.instance(t, "routes", "does not run", isRunning)
	route := json.RawMessage(fmt.Sprintf(`[{"hostnames":["new.example.com"],"port":%d}]`, lrp.Ports[0]))
	update := &models.DesiredLRPUpdate{Routes: &models.Routes{"cf-router": &route}}
	update.SetAnnotation("another")
	if err := n.runtime.UpdateLRP(t.Context(), "routes", update); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the new route is not in Consul", func() (bool, string) {
		services := n.services(t, "cf-routes", false)
		return len(services) == 1 && slices.Contains(services[0].Service.Tags, "http:new.example.com"), fmt.Sprint(services)
	})
	after := n.instance(t, "routes", "does not run", isRunning)
	if after.InstanceGuid != before.InstanceGuid || after.CrashCount != 0 {
		t.Errorf("the instance was %s and is %s", before.InstanceGuid, after.InstanceGuid)
	}
	if err := n.runtime.RemoveLRP(t.Context(), "routes"); err != nil {
		t.Fatal(err)
	}
}

func checkCrash(t *testing.T, n *bridgeNode) {
	t.Helper()
	lrp := webLRP(t, "crash")
	n.desire(t, lrp)
	url := fmt.Sprintf("http://127.0.0.1:%d/exit/3", lrp.Ports[0])
	guids := map[string]bool{}
	for crashes := int32(0); crashes < 3; crashes++ {
		actual := n.instance(t, "crash", "does not run", func(a *models.ActualLRP) bool { return isRunning(a) && a.CrashCount == crashes })
		guids[actual.InstanceGuid] = true
		if _, err := fetch(t, url); err == nil {
			t.Fatal("it answers instead of crashing")
		}
	}
	if len(guids) != 3 {
		t.Errorf("three containers had %d instance guids", len(guids))
	}
	crashed := n.instance(t, "crash", "has not crashed for good", func(a *models.ActualLRP) bool { return a.State == models.ActualLRPStateCrashed })
	if crashed.CrashCount != 3 || crashed.CrashReason != "APP/PROC/WEB: Exited with status 3" || !crashed.ActualLRPInstanceKey.Empty() {
		t.Errorf("crashed %d times, reason %q, key %v", crashed.CrashCount, crashed.CrashReason, crashed.ActualLRPInstanceKey)
	}
	if left := n.services(t, "cf-crash", false); len(left) != 0 {
		t.Errorf("the service is still there: %v", left)
	}
	if err := n.runtime.RemoveLRP(t.Context(), "crash"); err != nil {
		t.Fatal(err)
	}
}

func checkNeverHealthy(t *testing.T, n *bridgeNode) {
	t.Helper()
	lrp := webLRP(t, "sick")
	lrp.Action.CodependentAction.Actions[0].RunAction.Args = []string{"sleep", "600"}
	lrp.StartTimeoutMs = 2000
	n.desire(t, lrp)
	actual := n.instance(t, "sick", "does not crash", func(a *models.ActualLRP) bool { return a.CrashCount > 0 && a.CrashReason != "" })
	if !strings.Contains(actual.CrashReason, "Instance never healthy after") && !strings.Contains(actual.CrashReason, "Timed out after") {
		t.Errorf("the crash reason is %q", actual.CrashReason)
	}
	if err := n.runtime.RemoveLRP(t.Context(), "sick"); err != nil {
		t.Fatal(err)
	}
}

func checkMissingImage(t *testing.T, n *bridgeNode) {
	t.Helper()
	lrp := probeLRP("no-image", "sleep", "600")
	lrp.RootFs = "docker://127.0.0.1:1/team/missing#1"
	n.desire(t, lrp)
	actual := n.instance(t, "no-image", "does not say why", func(a *models.ActualLRP) bool { return a.CrashReason != "" })
	if !strings.HasPrefix(actual.CrashReason, "failed to create container: ") || !strings.Contains(actual.CrashReason, "team/missing") {
		t.Errorf("the crash reason is %q", actual.CrashReason)
	}
	if err := n.runtime.RemoveLRP(t.Context(), "no-image"); err != nil {
		t.Fatal(err)
	}
}

func checkPlacement(t *testing.T, n *bridgeNode) {
	t.Helper()
	lrp := probeLRP("greedy", "sleep", "600")
	lrp.MemoryMb = 1 << 30
	n.desire(t, lrp)
	n.instance(t, "greedy", "does not say what is missing", func(a *models.ActualLRP) bool {
		return a.State == models.ActualLRPStateUnclaimed && a.PlacementError == "insufficient resources: memory"
	})
	if err := n.runtime.RemoveLRP(t.Context(), "greedy"); err != nil {
		t.Fatal(err)
	}
}

func checkRemoveAndDesire(t *testing.T, n *bridgeNode) {
	t.Helper()
	n.desire(t, probeLRP("again", "env"))
	lrp := probeLRP("again", "sleep", "600")
	for _, word := range []string{"one", "two", "three"} {
		if err := n.runtime.RemoveLRP(t.Context(), "again"); err != nil {
			t.Fatal(err)
		}
		lrp.EnvironmentVariables = []*models.EnvironmentVariable{{Name: "WORD", Value: word}}
		n.desire(t, lrp)
		actual := n.instance(t, "again", "does not run", isRunning)
		allocs, _, err := n.cluster.Nomad.Jobs().Allocations(translate.LRPJobID("again"), true, nil)
		if err != nil {
			t.Fatal(err)
		}
		alloc, _, err := n.cluster.Nomad.Allocations().Info(latest(allocs).ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := n.exec(t, alloc, false, nil, nil, "/bin/probe", "env", "WORD"); strings.TrimSpace(got) != word {
			t.Errorf("instance %s runs with the word %q, want %q", actual.InstanceGuid, got, word)
		}
	}
	if err := n.runtime.RemoveLRP(t.Context(), "again"); err != nil {
		t.Fatal(err)
	}
}

func latest(allocs []*nomad.AllocationListStub) *nomad.AllocationListStub {
	return slices.MaxFunc(allocs, func(a, b *nomad.AllocationListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
}

// probeTask runs the probe program once.
func probeTask(args ...string) *models.TaskDefinition {
	return &models.TaskDefinition{
		RootFs: models.PreloadedRootFS("probe"), MemoryMb: 64, DiskMb: 32, CpuWeight: 1, MaxPids: 64, LogSource: "STG", LogGuid: "log",
		Action: models.WrapAction(&models.RunAction{Path: "/bin/probe", Args: args, User: "vcap", LogSource: "STG"}),
	}
}

// ended waits for a Task's end by the Runtime's hints, and deletes it.
func (n *bridgeNode) ended(t *testing.T, guid string) *models.Task {
	t.Helper()
	var task *models.Task
	eventually(t, 60*time.Second, "task "+guid+" does not end", func() (bool, string) {
		var err error
		if task, err = n.runtime.Task(t.Context(), guid); err != nil {
			t.Fatal(err)
		}
		return task.State == models.Task_Completed, task.State.String()
	})
	if err := n.runtime.ResolvingTask(t.Context(), guid); err != nil {
		t.Error(err)
	}
	if err := n.runtime.DeleteTask(t.Context(), guid); err != nil {
		t.Error(err)
	}
	return task
}

func (n *bridgeNode) desireTask(t *testing.T, guid string, task *models.TaskDefinition) {
	t.Helper()
	if err := n.runtime.DesireTask(t.Context(), guid, "cf-tasks", task); err != nil {
		t.Fatal(err)
	}
}

func checkTaskResult(t *testing.T, n *bridgeNode) {
	t.Helper()
	definition := probeTask("write", "/tmp/result.json", `{"lifecycle":"probe"}`)
	definition.ResultFile = "/tmp/result.json"
	n.desireTask(t, "result", definition)
	task := n.ended(t, "result")
	if task.Failed || task.Result != `{"lifecycle":"probe"}`+"\n" || task.CellId == "" {
		t.Errorf("failed %t: %s; result %q of cell %q", task.Failed, task.FailureReason, task.Result, task.CellId)
	}
}

func checkTaskFailure(t *testing.T, n *bridgeNode) {
	t.Helper()
	n.desireTask(t, "failure", probeTask("exit", "222"))
	if task := n.ended(t, "failure"); !task.Failed || task.FailureReason != "STG: Exited with status 222" {
		t.Errorf("failed %t: %q", task.Failed, task.FailureReason)
	}
	definition := probeTask("echo", "nothing")
	definition.ResultFile = "/tmp/none"
	n.desireTask(t, "no-result", definition)
	if task := n.ended(t, "no-result"); !task.Failed || task.FailureReason != "failed to fetch result" {
		t.Errorf("failed %t: %q", task.Failed, task.FailureReason)
	}
	definition = probeTask("echo", "nothing")
	definition.RootFs = "docker://127.0.0.1:1/team/missing#1"
	n.desireTask(t, "no-image", definition)
	if task := n.ended(t, "no-image"); !task.Failed || !strings.HasPrefix(task.FailureReason, "failed to create container: ") {
		t.Errorf("failed %t: %q", task.Failed, task.FailureReason)
	}
}

func checkTaskCancel(t *testing.T, n *bridgeNode) {
	t.Helper()
	n.desireTask(t, "cancelled", probeTask("sleep", "600"))
	eventually(t, 30*time.Second, "the task does not run", func() (bool, string) {
		task, err := n.runtime.Task(t.Context(), "cancelled")
		return err == nil && task.State == models.Task_Running && task.CellId != "", fmt.Sprint(task, err)
	})
	if err := n.runtime.CancelTask(t.Context(), "cancelled"); err != nil {
		t.Fatal(err)
	}
	if task := n.ended(t, "cancelled"); task.FailureReason != "task was cancelled" {
		t.Errorf("failed %t: %q", task.Failed, task.FailureReason)
	}
}

func checkTaskCutOff(t *testing.T, n *bridgeNode) {
	t.Helper()
	n.desireTask(t, "cut-off", probeTask("sleep", "600"))
	eventually(t, 30*time.Second, "the task does not run", func() (bool, string) {
		task, err := n.runtime.Task(t.Context(), "cut-off")
		return err == nil && task.State == models.Task_Running, fmt.Sprint(task, err)
	})
	allocs, _, err := n.cluster.Nomad.Jobs().Allocations(translate.TaskJobID("cut-off"), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.cluster.Nomad.Allocations().Stop(&nomad.Allocation{ID: allocs[0].ID}, nil); err != nil {
		t.Fatal(err)
	}
	if task := n.ended(t, "cut-off"); !task.Failed || task.FailureReason != "cell disappeared before completion" {
		t.Errorf("failed %t: %q", task.Failed, task.FailureReason)
	}
}

func checkBridgeRestart(t *testing.T, n *bridgeNode) {
	t.Helper()
	n.desire(t, webLRP(t, "kept"))
	before := n.instance(t, "kept", "does not run", isRunning)
	again := &bridgeNode{driverNode: n.driverNode, runtime: n.startRuntime(t, &recordedLog{})}
	actuals, err := again.runtime.ActualLRPs(t.Context(), bridge.ActualFilter{})
	if err != nil || len(actuals) != 1 {
		t.Fatalf("got %v, %v; want one instance", actuals, err)
	}
	if actuals[0].InstanceGuid != before.InstanceGuid || actuals[0].ModificationTag != before.ModificationTag || actuals[0].Since != before.Since {
		t.Errorf("another bridge tells another story: %v, was %v", actuals[0], before)
	}
	if err := again.runtime.RemoveLRP(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
}
