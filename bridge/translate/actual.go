package translate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"

	"drover/driver"
)

// Instances is what Actuals is told of an LRP.
type Instances struct {
	LRP *models.DesiredLRP
	// Since is when the LRP got its number of instances, in nanoseconds.
	Since int64
	// CreateIndex is Nomad's index at the LRP's creation: older allocations belong to a removed LRP of the same guid.
	CreateIndex uint64
	// ModifyIndex is Nomad's index at the LRP's last change.
	ModifyIndex uint64
	// Allocations of the LRP's job, in any order.
	Allocations []*api.AllocationListStub
	// PlacementError is given to instances that have no allocation.
	PlacementError string
	// NodeAddress returns the address of a node; it is asked for when an instance has no port.
	NodeAddress func(nodeID string) string
	// Removed says that the LRP is not desired any more.
	Removed bool
}

// Actuals returns the instances of an LRP by index: one for each that is desired, and those that have to go but still
// run. Of several allocations with the same index the one that Nomad wants counts.
func Actuals(in Instances) []*models.ActualLRP {
	byIndex := map[int32][]*api.AllocationListStub{}
	for _, alloc := range in.Allocations {
		if index, ok := allocIndex(alloc); ok && alloc.CreateIndex >= in.CreateIndex {
			byIndex[index] = append(byIndex[index], alloc)
		}
	}
	desired := in.LRP.Instances
	if in.Removed {
		desired = 0
	}
	var result []*models.ActualLRP
	for index := range desired {
		result = append(result, actual(in, index, byIndex[index]))
		delete(byIndex, index)
	}
	for index, allocs := range byIndex {
		if current := newest(allocs); isLive(current) {
			result = append(result, actual(in, index, allocs))
		}
	}
	slices.SortFunc(result, func(a, b *models.ActualLRP) int { return cmp.Compare(a.Index, b.Index) })
	return result
}

// allocIndex reads the index from an allocation's name, "<job>.<group>[<index>]".
func allocIndex(alloc *api.AllocationListStub) (int32, bool) {
	name, ok := strings.CutSuffix(alloc.Name, "]")
	start := strings.LastIndexByte(name, '[')
	if !ok || start < 0 {
		return 0, false
	}
	index, err := strconv.ParseInt(name[start+1:], 10, 32)
	return int32(index), err == nil && index >= 0
}

func isLive(alloc *api.AllocationListStub) bool {
	if alloc == nil {
		return false
	}
	switch alloc.ClientStatus {
	case api.AllocClientStatusPending, api.AllocClientStatusRunning, api.AllocClientStatusUnknown:
		return true
	}
	return false
}

// newest prefers what runs and shall run, then what still runs, then the latest.
func newest(allocs []*api.AllocationListStub) *api.AllocationListStub {
	if len(allocs) == 0 {
		return nil
	}
	rank := func(alloc *api.AllocationListStub) int {
		switch {
		case isLive(alloc) && alloc.DesiredStatus == api.AllocDesiredStatusRun:
			return 2
		case isLive(alloc):
			return 1
		}
		return 0
	}
	return slices.MaxFunc(allocs, func(a, b *api.AllocationListStub) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.CreateIndex, b.CreateIndex))
	})
}

func actual(in Instances, index int32, allocs []*api.AllocationListStub) *models.ActualLRP {
	result := &models.ActualLRP{
		ActualLRPKey:            models.NewActualLRPKey(in.LRP.ProcessGuid, index, in.LRP.Domain),
		State:                   models.ActualLRPStateUnclaimed,
		Since:                   in.Since,
		ModificationTag:         models.NewModificationTag(in.LRP.ModificationTag.GetEpoch(), uint32(in.ModifyIndex)),
		ActualLrpInternalRoutes: internalHostnames(in.LRP.Routes),
	}
	result.SetRoutable(false)
	alloc := newest(allocs)
	if alloc == nil {
		result.PlacementError = in.PlacementError
		return result
	}
	result.ModificationTag.Index = uint32(max(alloc.ModifyIndex, in.CreateIndex))
	result.CrashCount, result.CrashReason = crashes(allocs)
	task := readTask(alloc)
	switch {
	case isLive(alloc) && task.dead:
		result.State, result.Since = models.ActualLRPStateCrashed, task.since(alloc)
	case isLive(alloc) && task.healthy:
		result.State, result.Since = models.ActualLRPStateRunning, task.since(alloc)
		result.ActualLRPInstanceKey = models.NewActualLRPInstanceKey(cmp.Or(task.instanceGUID, alloc.ID), alloc.NodeID)
		result.ActualLRPNetInfo = netInfo(in, alloc, task)
		result.SetRoutable(true)
	case isLive(alloc):
		result.State, result.Since = models.ActualLRPStateClaimed, task.since(alloc)
		result.ActualLRPInstanceKey = models.NewActualLRPInstanceKey(cmp.Or(task.instanceGUID, alloc.ID), alloc.NodeID)
	case alloc.ClientStatus == api.AllocClientStatusFailed && alloc.DesiredStatus == api.AllocDesiredStatusRun && alloc.NextAllocation == "":
		result.State, result.Since = models.ActualLRPStateCrashed, task.since(alloc)
	default:
		result.Since = task.since(alloc)
		result.PlacementError = in.PlacementError
	}
	result.MetricTags = metricTags(in.LRP.MetricTags, result)
	return result
}

// metricTags fills in the dynamic ones.
func metricTags(tags map[string]*models.MetricTagValue, actual *models.ActualLRP) map[string]string {
	if len(tags) == 0 {
		return nil
	}
	result := make(map[string]string, len(tags))
	for name, tag := range tags {
		switch tag.GetDynamic() {
		case models.MetricTagDynamicValueIndex:
			result[name] = strconv.Itoa(int(actual.Index))
		case models.MetricTagDynamicValueInstanceGuid:
			result[name] = actual.InstanceGuid
		default:
			result[name] = tag.GetStatic()
		}
	}
	return result
}

func netInfo(in Instances, alloc *api.AllocationListStub, task taskLife) models.ActualLRPNetInfo {
	info := models.ActualLRPNetInfo{
		InstanceAddress:  task.address,
		PreferredAddress: models.ActualLRPNetInfo_PreferredAddressHost,
	}
	if alloc.AllocatedResources != nil {
		for _, port := range alloc.AllocatedResources.Shared.Ports {
			container := port.To
			if container <= 0 {
				container = port.Value
			}
			info.Address = port.HostIP
			info.Ports = append(info.Ports, models.NewPortMapping(uint32(port.Value), uint32(container)))
		}
	}
	// In the order in which they were desired: whoever takes the first means the app's, not that of ssh.
	order := func(port *models.PortMapping) int { return slices.Index(in.LRP.Ports, port.ContainerPort) }
	slices.SortFunc(info.Ports, func(a, b *models.PortMapping) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.ContainerPort, b.ContainerPort))
	})
	if info.Address == "" && in.NodeAddress != nil {
		info.Address = in.NodeAddress(alloc.NodeID)
	}
	if info.InstanceAddress == "" {
		info.InstanceAddress = info.Address
	}
	return info
}

// crashes counts the ends of an instance's containers and says why the last one came.
func crashes(allocs []*api.AllocationListStub) (int32, string) {
	var count int32
	var reason string
	sorted := slices.SortedFunc(slices.Values(allocs), func(a, b *api.AllocationListStub) int {
		return cmp.Compare(a.CreateIndex, b.CreateIndex)
	})
	for _, alloc := range sorted {
		state := alloc.TaskStates[TaskName]
		if state == nil {
			continue
		}
		count += int32(min(state.Restarts, 1<<20))
		if alloc.ClientStatus == api.AllocClientStatusFailed {
			count++
		}
		if said := readTask(alloc).crash; said != "" {
			reason = said
		}
	}
	if count == 0 {
		return 0, ""
	}
	return count, truncate(reason)
}

// maxText is how much Diego keeps of a reason.
const (
	maxText   = 1024
	truncated = "(truncated)"
)

func truncate(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText-len(truncated)], "") + truncated
}

// taskLife is what the last events of a task tell.
type taskLife struct {
	// running: a container has been started and has not ended; healthy: its checks passed; dead: Nomad gave up on it.
	running, healthy, dead bool
	// changed is the time of the last event that changed any of these.
	changed               int64
	instanceGUID, address string
	// said is the driver's reason for an end that Nomad has not told yet; crash is why the last container ended.
	said, crash string
}

func (l taskLife) since(alloc *api.AllocationListStub) int64 {
	return cmp.Or(l.changed, alloc.CreateTime)
}

// readTask replays a task's events. Nomad keeps the last ten: a task that runs without any trace of its start must
// have become healthy before those.
func readTask(alloc *api.AllocationListStub) taskLife {
	var life taskLife
	state := alloc.TaskStates[TaskName]
	if state == nil {
		return life
	}
	started := false
	for _, event := range state.Events {
		switch event.Type {
		case api.TaskReceived:
			started = true
			life.changed = event.Time
		case api.TaskStarted:
			started = true
			if !life.healthy {
				life.running = true
				life.changed = event.Time
			}
		case api.TaskTerminated, api.TaskDriverFailure, api.TaskSetupFailure, api.TaskNotRestarting:
			started = true
			life.running, life.healthy = false, false
			life.changed = event.Time
			life.crash, life.said = cmp.Or(endReason(event, life.said), life.crash), ""
		case api.TaskDriverMessage:
			started = life.message(event) || started
		}
	}
	if state.State == "running" && !started {
		life.running, life.healthy = true, true
		life.changed = state.StartedAt.UnixNano()
	}
	life.dead = state.State == "dead" && state.Failed
	if state.State != "running" {
		life.healthy = false
	}
	return life
}

// message takes one of the driver's events, and says whether it tells of a start.
func (l *taskLife) message(event *api.TaskEvent) bool {
	switch event.Details[driver.AnnotationPhase] {
	case driver.PhaseStarted:
		l.running, l.healthy, l.said = true, false, ""
		l.instanceGUID = event.Details[driver.AnnotationInstanceGUID]
		l.address = event.Details[driver.AnnotationAddress]
		l.changed = event.Time
		return true
	case driver.PhaseHealthy:
		l.running, l.healthy = true, true
		l.instanceGUID = cmp.Or(event.Details[driver.AnnotationInstanceGUID], l.instanceGUID)
		l.address = cmp.Or(event.Details[driver.AnnotationAddress], l.address)
		l.changed = event.Time
		return true
	case driver.PhaseEnded:
		l.said = event.Details[driver.AnnotationReason]
		l.healthy = false
		return true
	}
	return false
}

// LiveAt returns the ids of the allocations that run, or will, as an instance of an LRP.
func LiveAt(allocs []*api.AllocationListStub, instance int32, createIndex uint64) []string {
	var ids []string
	for _, alloc := range allocs {
		index, ok := allocIndex(alloc)
		if ok && index == instance && alloc.CreateIndex >= createIndex && isLive(alloc) && alloc.DesiredStatus == api.AllocDesiredStatusRun {
			ids = append(ids, alloc.ID)
		}
	}
	return ids
}
