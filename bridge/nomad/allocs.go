package nomad

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/nomad/api"

	"drover/bridge/translate"
)

// allocations is the index of the allocations of our jobs.
type allocations struct {
	health health

	mu    sync.Mutex
	byJob map[string][]*api.AllocationListStub
}

func newAllocations() *allocations {
	return &allocations{health: health{ready: make(chan struct{})}}
}

// of returns the allocations of a job. They are shared: do not change them.
func (a *allocations) of(jobID string) []*api.AllocationListStub {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byJob[jobID]
}

// ours is the filter for the jobs of LRPs and Tasks.
const ours = `JobID matches "^(lrp|task)-"`

// listAllocations brings the index up to date with one list, and completes Tasks that have ended.
func (r *Runtime) listAllocations(ctx context.Context, index uint64) (seen, error) {
	query := r.query(ctx)
	query.WaitIndex, query.WaitTime = index, blockFor
	query.Filter = ours
	query.Params = map[string]string{"resources": "true", "task_states": "true"}
	list, meta, err := r.client.Allocations().List(query)
	if err != nil {
		return seen{}, fmt.Errorf("list allocations: %w", err)
	}
	byJob := map[string][]*api.AllocationListStub{}
	for _, alloc := range list {
		byJob[alloc.JobID] = append(byJob[alloc.JobID], alloc)
	}
	r.allocs.mu.Lock()
	r.allocs.byJob = byJob
	r.allocs.mu.Unlock()
	r.completeTasks(ctx)
	return seen{index: meta.LastIndex, size: len(list)}, nil
}

// blocked returns what Nomad says of each job of ours that it cannot place.
func (r *Runtime) blocked(ctx context.Context) (map[string]*api.AllocationMetric, error) {
	query := r.query(ctx)
	query.Filter = ours + ` and Status == "blocked"`
	list, _, err := r.client.Evaluations().List(query)
	if err != nil {
		return nil, fmt.Errorf("list blocked evaluations: %w", err)
	}
	result := map[string]*api.AllocationMetric{}
	for _, evaluation := range list {
		for group, metric := range evaluation.FailedTGAllocs {
			if group == translate.LRPGroup || group == translate.TaskGroup {
				result[evaluation.JobID] = metric
			}
		}
	}
	return result, nil
}

// nodes remembers the addresses of nodes.
type nodes struct {
	runtime *Runtime

	mu        sync.Mutex
	addresses map[string]string
}

// address returns a node's address, or its id when Nomad does not say.
func (n *nodes) address(ctx context.Context, id string) string {
	n.mu.Lock()
	found := n.addresses[id]
	n.mu.Unlock()
	if found != "" {
		return found
	}
	node, _, err := n.runtime.client.Nodes().Info(id, n.runtime.query(ctx))
	if err != nil || node.Attributes["unique.network.ip-address"] == "" {
		return id
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses[id] = node.Attributes["unique.network.ip-address"]
	return n.addresses[id]
}
