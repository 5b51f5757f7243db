package translate

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"

	"drover/driver"
)

// TaskState is how far a Task is.
type TaskState struct {
	State  models.Task_State
	CellID string
	// Failed, Reason and Result are set when State is Completed.
	Failed bool
	Reason string
	Result string
}

// disappeared is Diego's word for work that was cut off by something else than itself.
const disappeared = "cell disappeared before completion"

// TaskOf reads a Task's state from the allocations of its job. wantsResult says that the Task names a result file. A
// Task runs at most once: one that was cut off after its start has failed, even if Nomad has begun it anew elsewhere.
func TaskOf(allocs []*api.AllocationListStub, createIndex uint64, wantsResult bool) TaskState {
	var own []*api.AllocationListStub
	for _, alloc := range allocs {
		if alloc.CreateIndex < createIndex {
			continue
		}
		if ended := lastEnded(alloc); ended != nil {
			return endedTask(alloc, ended)
		}
		if wasCutOff(alloc) {
			return TaskState{State: models.Task_Completed, CellID: alloc.NodeID, Failed: true, Reason: disappeared}
		}
		own = append(own, alloc)
	}
	alloc := newest(own)
	switch {
	case alloc == nil:
		return TaskState{State: models.Task_Pending}
	case isLive(alloc) && readTask(alloc).running:
		return TaskState{State: models.Task_Running, CellID: alloc.NodeID}
	case alloc.ClientStatus == api.AllocClientStatusFailed:
		reason := truncate(cmp.Or(readTask(alloc).crash, "failed to run container"))
		return TaskState{State: models.Task_Completed, CellID: alloc.NodeID, Failed: true, Reason: reason}
	case alloc.ClientStatus == api.AllocClientStatusComplete && alloc.DesiredStatus == api.AllocDesiredStatusRun:
		result := TaskState{State: models.Task_Completed, CellID: alloc.NodeID}
		if wantsResult {
			result.Failed, result.Reason = true, "failed to fetch result"
		}
		return result
	}
	// On its way, or stopped before it began: Nomad will place it, or the job is gone.
	return TaskState{State: models.Task_Pending}
}

// wasCutOff says whether an allocation that had begun its work was lost or stopped from outside.
func wasCutOff(alloc *api.AllocationListStub) bool {
	if !hasEvent(alloc, api.TaskStarted) {
		return false
	}
	return alloc.ClientStatus == api.AllocClientStatusLost ||
		(alloc.ClientStatus == api.AllocClientStatusComplete && alloc.DesiredStatus != api.AllocDesiredStatusRun)
}

func hasEvent(alloc *api.AllocationListStub, kind string) bool {
	state := alloc.TaskStates[TaskName]
	return state != nil && slices.ContainsFunc(state.Events, func(event *api.TaskEvent) bool { return event.Type == kind })
}

func lastEnded(alloc *api.AllocationListStub) *api.TaskEvent {
	state := alloc.TaskStates[TaskName]
	if state == nil {
		return nil
	}
	for _, event := range slices.Backward(state.Events) {
		if event.Type == api.TaskDriverMessage && event.Details[driver.AnnotationPhase] == driver.PhaseEnded {
			return event
		}
	}
	return nil
}

func endedTask(alloc *api.AllocationListStub, ended *api.TaskEvent) TaskState {
	result := TaskState{State: models.Task_Completed, CellID: alloc.NodeID}
	if reason := ended.Details[driver.AnnotationReason]; reason != "" {
		result.Failed, result.Reason = true, truncate(reason)
		return result
	}
	if hasEvent(alloc, api.TaskKilling) {
		result.Failed, result.Reason = true, disappeared
		return result
	}
	raw, err := base64.StdEncoding.DecodeString(ended.Details[driver.AnnotationResult])
	if err != nil {
		result.Failed, result.Reason = true, "failed to fetch result"
		return result
	}
	result.Result = string(raw)
	return result
}

// endReason says in Diego's words why a container ended; said is the reason that the driver gave before.
func endReason(event *api.TaskEvent, said string) string {
	switch event.Type {
	case api.TaskTerminated:
		if said != "" {
			return said
		}
		text := "Exited with status " + cmp.Or(event.Details["exit_code"], fmt.Sprint(event.ExitCode))
		if event.Details["oom_killed"] == "true" {
			text += " (out of memory)"
		}
		return text
	case api.TaskDriverFailure:
		text := cmp.Or(event.Details["driver_error"], event.DriverError, event.DisplayMessage)
		return "failed to create container: " + withoutCode(text)
	case api.TaskSetupFailure:
		return "failed to create container: " + cmp.Or(event.Details["setup_error"], event.SetupError, event.DisplayMessage)
	}
	return ""
}

// withoutCode takes what gRPC puts before an error of the driver.
func withoutCode(text string) string {
	if rest, ok := strings.CutPrefix(text, "rpc error: code = "); ok {
		if _, said, ok := strings.Cut(rest, " desc = "); ok {
			return said
		}
	}
	return text
}

// missingDrivers is Nomad's word for nodes that do not have the job's driver.
const missingDrivers = "missing drivers"

// Placement makes Diego's placement error of what Nomad says of a job that it cannot place; empty when it can.
func Placement(metric *api.AllocationMetric) string {
	if metric == nil {
		return ""
	}
	if len(metric.DimensionExhausted) > 0 {
		return "insufficient resources: " + strings.Join(exhausted(metric.DimensionExhausted), ", ")
	}
	var tags []string
	rootFS, untagged := false, false
	for filter := range metric.ConstraintFiltered {
		tag, tagged := strings.CutPrefix(filter, tagsKey+" "+api.ConstraintSetContains+" ")
		switch {
		case filter == missingDrivers, strings.HasPrefix(filter, stackPrefix):
			rootFS = true
		case tagged:
			tags = append(tags, fmt.Sprintf("%q", tag))
		case strings.HasPrefix(filter, tagsKey):
			untagged = true
		}
	}
	tags = sortedUnique(tags)
	switch {
	case rootFS:
		return "found no compatible cell for required rootfs"
	case len(tags) == 1:
		return "found no compatible cell with placement tag " + tags[0]
	case len(tags) > 1:
		return "found no compatible cell with placement tags " + strings.Join(tags, ", ")
	case untagged:
		return "found no compatible cell with no placement tags"
	}
	return "unable to communicate to compatible cells"
}

// exhausted turns Nomad's dimensions into Diego's.
func exhausted(dimensions map[string]int) []string {
	var names []string
	for dimension := range dimensions {
		switch dimension {
		case "memory", "disk":
			names = append(names, dimension)
		default:
			names = append(names, "containers")
		}
	}
	return sortedUnique(names)
}
