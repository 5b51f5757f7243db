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

// TaskOf reads a Task's state from the allocations of its job. wantsResult says that the Task names a result file.
func TaskOf(allocs []*api.AllocationListStub, createIndex uint64, wantsResult bool) TaskState {
	var own []*api.AllocationListStub
	for _, alloc := range allocs {
		if alloc.CreateIndex >= createIndex {
			own = append(own, alloc)
		}
	}
	alloc := newest(own)
	if alloc == nil {
		return TaskState{State: models.Task_Pending}
	}
	if ended := lastEnded(alloc); ended != nil {
		return endedTask(alloc, ended)
	}
	if isLive(alloc) {
		if readTask(alloc).running {
			return TaskState{State: models.Task_Running, CellID: alloc.NodeID}
		}
		return TaskState{State: models.Task_Pending}
	}
	result := TaskState{State: models.Task_Completed, CellID: alloc.NodeID, Failed: true}
	switch alloc.ClientStatus {
	case api.AllocClientStatusLost:
		result.Reason = "cell disappeared before completion"
	case api.AllocClientStatusComplete:
		result.Failed = wantsResult || alloc.DesiredStatus != api.AllocDesiredStatusRun
		result.Reason = "failed to fetch result"
		if alloc.DesiredStatus != api.AllocDesiredStatusRun {
			result.Reason = "cell disappeared before completion"
		}
	default:
		result.Reason = truncate(cmp.Or(readTask(alloc).crash, "failed to run container"))
	}
	if !result.Failed {
		result.Reason = ""
	}
	return result
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
		return "failed to create container: " + strings.TrimPrefix(text, "rpc error: code = Unknown desc = ")
	case api.TaskSetupFailure:
		return "failed to create container: " + cmp.Or(event.Details["setup_error"], event.SetupError, event.DisplayMessage)
	}
	return ""
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
