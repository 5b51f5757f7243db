package bridgetest

import (
	"testing"

	"code.cloudfoundry.org/bbs/models"
)

// StartTask lets a cell run a pending Task.
func (m *Memory) StartTask(t testing.TB, guid, cellID string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	task := m.tasks[guid]
	if task == nil || task.State != models.Task_Pending {
		t.Fatalf("task %q is not pending", guid)
	}
	task.State = models.Task_Running
	task.CellId = cellID
	task.UpdatedAt = m.now().UnixNano()
}

// CompleteTask ends a Task: failed when failure is not empty, else with a result.
func (m *Memory) CompleteTask(t testing.TB, guid, failure, result string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	task := m.tasks[guid]
	if task == nil || (task.State != models.Task_Pending && task.State != models.Task_Running) {
		t.Fatalf("task %q is neither pending nor running", guid)
	}
	cell := task.CellId
	m.complete(task, failure, result)
	task.CellId = cell
}

// ClaimLRP lets a cell take an instance.
func (m *Memory) ClaimLRP(t testing.TB, guid string, index int32, instance models.ActualLRPInstanceKey) {
	t.Helper()
	m.change(t, guid, index, func(actual *models.ActualLRP) {
		actual.State = models.ActualLRPStateClaimed
		actual.ActualLRPInstanceKey = instance
		actual.PlacementError = ""
	})
}

// RunLRP lets a cell run an instance, reachable and routable.
func (m *Memory) RunLRP(t testing.TB, guid string, index int32, instance models.ActualLRPInstanceKey, net models.ActualLRPNetInfo) {
	t.Helper()
	m.change(t, guid, index, func(actual *models.ActualLRP) {
		actual.State = models.ActualLRPStateRunning
		actual.ActualLRPInstanceKey = instance
		actual.ActualLRPNetInfo = net
		actual.PlacementError = ""
		actual.SetRoutable(true)
	})
}

// CrashLRP ends an instance, for good as far as Memory is concerned.
func (m *Memory) CrashLRP(t testing.TB, guid string, index int32, reason string) {
	t.Helper()
	m.change(t, guid, index, func(actual *models.ActualLRP) {
		actual.State = models.ActualLRPStateCrashed
		actual.ActualLRPInstanceKey = models.ActualLRPInstanceKey{}
		actual.ActualLRPNetInfo = models.EmptyActualLRPNetInfo()
		actual.CrashCount++
		actual.CrashReason = reason
		actual.SetRoutable(false)
	})
}

// FailPlacement gives an unclaimed instance a placement error.
func (m *Memory) FailPlacement(t testing.TB, guid string, index int32, text string) {
	t.Helper()
	m.change(t, guid, index, func(actual *models.ActualLRP) { actual.PlacementError = text })
}

func (m *Memory) change(t testing.TB, guid string, index int32, how func(*models.ActualLRP)) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.lrps[guid]
	if entry == nil || int(index) >= len(entry.actuals) {
		t.Fatalf("LRP %q has no instance %d", guid, index)
	}
	actual := entry.actuals[index]
	how(actual)
	actual.Since = m.now().UnixNano()
	actual.ModificationTag.Increment()
}
