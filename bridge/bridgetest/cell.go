package bridgetest

import (
	"testing"

	"code.cloudfoundry.org/bbs/models"
)

// StartTask lets a cell run a pending Task.
func (m *Memory) StartTask(tb testing.TB, guid, cellID string) {
	tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	task := m.tasks[guid]
	if task == nil || task.State != models.Task_Pending {
		tb.Fatalf("task %q is not pending", guid)
	}
	task.State = models.Task_Running
	task.CellId = cellID
	task.UpdatedAt = m.now().UnixNano()
}

// CompleteTask ends a Task: failed when failure is not empty, else with a result.
func (m *Memory) CompleteTask(tb testing.TB, guid, failure, result string) {
	tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	task := m.tasks[guid]
	if task == nil || (task.State != models.Task_Pending && task.State != models.Task_Running) {
		tb.Fatalf("task %q is neither pending nor running", guid)
	}
	cell := task.CellId
	m.complete(task, failure, result)
	task.CellId = cell
}

// ClaimLRP lets a cell take an instance.
func (m *Memory) ClaimLRP(tb testing.TB, guid string, index int32, instance models.ActualLRPInstanceKey) {
	tb.Helper()
	m.change(tb, guid, index, func(actual *models.ActualLRP) {
		actual.State = models.ActualLRPStateClaimed
		actual.ActualLRPInstanceKey = instance
		actual.PlacementError = ""
	})
}

// RunLRP lets a cell run an instance, reachable and routable.
func (m *Memory) RunLRP(tb testing.TB, guid string, index int32, instance models.ActualLRPInstanceKey, net models.ActualLRPNetInfo) {
	tb.Helper()
	m.change(tb, guid, index, func(actual *models.ActualLRP) {
		actual.State = models.ActualLRPStateRunning
		actual.ActualLRPInstanceKey = instance
		actual.ActualLRPNetInfo = net
		actual.PlacementError = ""
		actual.SetRoutable(true)
	})
}

// CrashLRP ends an instance, for good as far as Memory is concerned.
func (m *Memory) CrashLRP(tb testing.TB, guid string, index int32, reason string) {
	tb.Helper()
	m.change(tb, guid, index, func(actual *models.ActualLRP) {
		actual.State = models.ActualLRPStateCrashed
		actual.ActualLRPInstanceKey = models.ActualLRPInstanceKey{}
		actual.ActualLRPNetInfo = models.EmptyActualLRPNetInfo()
		actual.CrashCount++
		actual.CrashReason = reason
		actual.SetRoutable(false)
	})
}

// FailPlacement gives an unclaimed instance a placement error.
func (m *Memory) FailPlacement(tb testing.TB, guid string, index int32, text string) {
	tb.Helper()
	m.change(tb, guid, index, func(actual *models.ActualLRP) { actual.PlacementError = text })
}

func (m *Memory) change(tb testing.TB, guid string, index int32, how func(*models.ActualLRP)) {
	tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.lrps[guid]
	if entry == nil || int(index) >= len(entry.actuals) {
		tb.Fatalf("LRP %q has no instance %d", guid, index)
	}
	actual := entry.actuals[index]
	how(actual)
	actual.Since = m.now().UnixNano()
	actual.ModificationTag.Increment()
}
