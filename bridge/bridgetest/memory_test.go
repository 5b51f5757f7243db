package bridgetest

import (
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

func TestMemory(t *testing.T) {
	Contract(t, func(*testing.T) bridge.Runtime { return NewMemory(nil) })
}

func TestMemory_givesUpAStaleClaim(t *testing.T) {
	now := time.Unix(1000, 0)
	memory := NewMemory(func() time.Time { return now })
	mustDo(t, memory.DesireTask(t.Context(), "task-1", "cf-tasks", Task()))
	memory.StartTask(t, "task-1", "cell")
	memory.CompleteTask(t, "task-1", "", "result")
	mustDo(t, memory.ResolvingTask(t.Context(), "task-1"))
	now = now.Add(resolvingTimeout + time.Second)
	mustDo(t, memory.ResolvingTask(t.Context(), "task-1"))
	task := mustGet(memory.Task(t.Context(), "task-1"))(t)
	if task.State != models.Task_Resolving || task.Result != "result" || task.CellId != "cell" {
		t.Errorf("got %s with result %q of cell %q", task.State, task.Result, task.CellId)
	}
}

func TestMemory_runsAndCrashesInstances(t *testing.T) {
	memory := NewMemory(nil)
	mustDo(t, memory.DesireLRP(t.Context(), LRP("lrp-1")))
	memory.FailPlacement(t, "lrp-1", 0, "insufficient resources: memory")
	instance := models.NewActualLRPInstanceKey("instance", "cell")
	memory.ClaimLRP(t, "lrp-1", 0, instance)
	net := models.NewActualLRPNetInfo("10.0.0.1", "172.16.0.2", models.ActualLRPNetInfo_PreferredAddressHost, models.NewPortMapping(61000, 8080))
	memory.RunLRP(t, "lrp-1", 0, instance, net)
	memory.CrashLRP(t, "lrp-1", 1, "APP/PROC/WEB: Exited with status 3")
	actuals := mustGet(memory.ActualLRPs(t.Context(), bridge.ActualFilter{}))(t)
	if actuals[0].State != models.ActualLRPStateRunning || actuals[0].Address != "10.0.0.1" || actuals[0].PlacementError != "" || !actuals[0].GetRoutable() {
		t.Errorf("the running instance is %+v", actuals[0])
	}
	if actuals[1].State != models.ActualLRPStateCrashed || actuals[1].CrashCount != 1 {
		t.Errorf("the crashed instance is %+v", actuals[1])
	}
	for _, actual := range actuals {
		if err := actual.Validate(); err != nil {
			t.Errorf("instance %d: %v", actual.Index, err)
		}
	}
}

func TestFixtures_areValid(t *testing.T) {
	if err := LRP("guid").Validate(); err != nil {
		t.Errorf("LRP: %v", err)
	}
	if err := Task().Validate(); err != nil {
		t.Errorf("Task: %v", err)
	}
}
