package bbs

import "net/http"

const pingRoute = "Ping"

// The two states of a route.
const (
	Served    = "served"
	NotServed = "not served: 404"
)

// Route is one line of the BBS API and what we do about it.
type Route struct {
	Name   string
	Method string
	Path   string
	State  string
}

// Routes lists the whole BBS API of bbs v1.12.0.
func Routes() []Route {
	var routes []Route
	for _, e := range table() {
		state := NotServed
		if e.open != nil {
			state = Served
		}
		routes = append(routes, Route{Name: e.name, Method: e.method, Path: e.path, State: state})
	}
	return routes
}

// entry is a Route before its door is known. Without open it is not served.
type entry struct {
	name, method, path string
	open               func(*door) answer
}

func table() []entry {
	const get, post = http.MethodGet, http.MethodPost
	return []entry{
		{pingRoute, post, "/v1/ping", (*door).ping},

		{"Domains", post, "/v1/domains/list", nil},
		{"UpsertDomain", post, "/v1/domains/upsert", (*door).upsertDomain},

		{"ActualLRPs", post, "/v1/actual_lrps/list", (*door).actualLRPs},
		{"ActualLRPsByProcessGuids", post, "/v1/actual_lrps/list_by_process_guids", (*door).actualLRPsByProcessGuids},
		{"ActualLRPGroups", post, "/v1/actual_lrp_groups/list", nil},
		{"ActualLRPGroupsByProcessGuid", post, "/v1/actual_lrp_groups/list_by_process_guid", nil},
		{"ActualLRPGroupsByProcessGuidAndIndex", post, "/v1/actual_lrp_groups/get_by_process_guid_and_index", nil},

		{"ClaimActualLRP", post, "/v1/actual_lrps/claim", nil},
		{"StartActualLRP", post, "/v1/actual_lrps/start.r1", nil},
		{"StartActualLRP_r0", post, "/v1/actual_lrps/start", nil},
		{"CrashActualLRP", post, "/v1/actual_lrps/crash", nil},
		{"FailActualLRP", post, "/v1/actual_lrps/fail", nil},
		{"RemoveActualLRP", post, "/v1/actual_lrps/remove", nil},
		{"RetireActualLRP", post, "/v1/actual_lrps/retire", (*door).retireActualLRP},

		{"RemoveEvacuatingActualLRP", post, "/v1/actual_lrps/remove_evacuating", nil},
		{"EvacuateClaimedActualLRP", post, "/v1/actual_lrps/evacuate_claimed", nil},
		{"EvacuateCrashedActualLRP", post, "/v1/actual_lrps/evacuate_crashed", nil},
		{"EvacuateStoppedActualLRP", post, "/v1/actual_lrps/evacuate_stopped", nil},
		{"EvacuateRunningActualLRP", post, "/v1/actual_lrps/evacuate_running.r1", nil},
		{"EvacuateRunningActualLRP_r0", post, "/v1/actual_lrps/evacuate_running", nil},

		{"DesiredLRPSchedulingInfos", post, "/v1/desired_lrp_scheduling_infos/list", (*door).schedulingInfos},
		{"DesiredLRPSchedulingInfoByProcessGuid", post, "/v1/desired_lrp_scheduling_infos/get_by_process_guid", nil},
		{"DesiredLRPRoutingInfos", post, "/v1/desired_lrp_routing_infos/list", nil},
		{"DesiredLRPs", post, "/v1/desired_lrps/list.r3", nil},
		{"DesiredLRPs_r2", post, "/v1/desired_lrps/list.r2", nil},
		{"DesiredLRPByProcessGuid", post, "/v1/desired_lrps/get_by_process_guid.r3", nil},
		{"DesiredLRPByProcessGuid_r2", post, "/v1/desired_lrps/get_by_process_guid.r2", (*door).desiredLRP},

		{"DesireDesiredLRP", post, "/v1/desired_lrp/desire.r2", (*door).desireLRP},
		{"UpdateDesireLRP", post, "/v1/desired_lrp/update", (*door).updateLRP},
		{"RemoveDesiredLRP", post, "/v1/desired_lrp/remove", (*door).removeLRP},

		{"Tasks", post, "/v1/tasks/list.r3", nil},
		{"Tasks_r2", post, "/v1/tasks/list.r2", (*door).tasks},
		{"TaskByGuid", post, "/v1/tasks/get_by_task_guid.r3", nil},
		{"TaskByGuid_r2", post, "/v1/tasks/get_by_task_guid.r2", (*door).task},

		{"DesireTask", post, "/v1/tasks/desire.r2", (*door).desireTask},
		{"StartTask", post, "/v1/tasks/start", nil},
		{"CancelTask", post, "/v1/tasks/cancel", (*door).cancelTask},
		{"FailTask", post, "/v1/tasks/fail", nil},
		{"RejectTask", post, "/v1/tasks/reject", nil},
		{"CompleteTask", post, "/v1/tasks/complete", nil},
		{"ResolvingTask", post, "/v1/tasks/resolving", nil},
		{"DeleteTask", post, "/v1/tasks/delete", nil},

		{"EventStream", get, "/v1/events.r1", nil},
		{"EventStream_r0", get, "/v1/events", nil},
		{"TaskEventStream", post, "/v1/events/tasks.r1", nil},
		{"TaskEventStream_r0", post, "/v1/events/tasks", nil},
		{"LRPInstanceEventStream", post, "/v1/events/lrp_instances.r1", nil},
		{"LrpInstanceEventStream_r0", post, "/v1/events/lrp_instances", nil},

		{"Cells", post, "/v1/cells/list.r1", nil},
	}
}
