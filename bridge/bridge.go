// Package bridge is the contract between the doors through which Cloud Controllers and other clients call, and the
// scheduler that runs what they ask for.
//
// The vocabulary is Diego's, by way of bbs/models: a DesiredLRP is run for ever in N instances (ActualLRPs), a Task is
// run once and told about. A door decodes a request, calls Runtime once, and encodes the answer; it holds no state and
// knows no scheduler. Errors are *models.Error values (models.ErrResourceNotFound, ErrResourceExists, …), found with
// models.ConvertError; any other error means that the runtime itself failed, and a door answers it as unavailable.
package bridge

import (
	"context"
	"time"

	"code.cloudfoundry.org/bbs/models"
)

// TaskFilter narrows a list of Tasks; zero fields do not.
type TaskFilter struct {
	Domain string
	CellID string
}

// LRPFilter narrows a list of DesiredLRPs; zero fields do not.
type LRPFilter struct {
	Domain       string
	ProcessGUIDs []string
}

// ActualFilter narrows a list of ActualLRPs; zero fields do not.
type ActualFilter struct {
	Domain       string
	CellID       string
	ProcessGUIDs []string
	Index        *int32
}

// Runtime runs LRPs and Tasks. All methods are safe for concurrent use and idempotent under a client's retries as far
// as Diego's are. Values passed in are not kept, values returned belong to the caller.
type Runtime interface {
	LRPs
	Tasks
	Domains
}

// LRPs is the long running half of a Runtime (contracts/bbs.md §3).
type LRPs interface {
	// DesireLRP creates an LRP; its instances are listed as UNCLAIMED when it returns. A second call with the same
	// process guid is models.ErrResourceExists. The request is already valid by models' own Validate.
	DesireLRP(ctx context.Context, lrp *models.DesiredLRP) error
	// DesiredLRP returns one LRP as it was desired and updated, or models.ErrResourceNotFound.
	DesiredLRP(ctx context.Context, processGUID string) (*models.DesiredLRP, error)
	// DesiredLRPs returns whole LRPs in the order of their guids. It reads secrets: prefer SchedulingInfos.
	DesiredLRPs(ctx context.Context, filter LRPFilter) ([]*models.DesiredLRP, error)
	// SchedulingInfos returns what a sync needs, without run info.
	SchedulingInfos(ctx context.Context, filter LRPFilter) ([]*models.DesiredLRPSchedulingInfo, error)
	// UpdateLRP changes instances, routes, annotation and metric tags of an LRP, restarting nothing.
	UpdateLRP(ctx context.Context, processGUID string, update *models.DesiredLRPUpdate) error
	// RemoveLRP stops and forgets an LRP; it returns at once.
	RemoveLRP(ctx context.Context, processGUID string) error
	// ActualLRPs lists instances, by process guid and index.
	ActualLRPs(ctx context.Context, filter ActualFilter) ([]*models.ActualLRP, error)
	// RetireActualLRP stops one instance; another takes its place while the LRP is desired.
	RetireActualLRP(ctx context.Context, key *models.ActualLRPKey) error
}

// Tasks is the one-off half of a Runtime. A Task goes Pending, Running, Completed, Resolving and is gone.
type Tasks interface {
	// DesireTask creates a Task; a known guid, in whatever domain, is models.ErrResourceExists.
	DesireTask(ctx context.Context, guid, domain string, task *models.TaskDefinition) error
	// Task returns one Task with its definition, or models.ErrResourceNotFound.
	Task(ctx context.Context, guid string) (*models.Task, error)
	// Tasks lists Tasks with their definitions.
	Tasks(ctx context.Context, filter TaskFilter) ([]*models.Task, error)
	// CancelTask makes a pending or running Task Completed and failed, "task was cancelled".
	CancelTask(ctx context.Context, guid string) error
	// ResolvingTask claims a Completed Task's result for delivery; DeleteTask forgets a Resolving Task. Both answer
	// models.NewTaskTransitionError for other states.
	ResolvingTask(ctx context.Context, guid string) error
	DeleteTask(ctx context.Context, guid string) error
	// Completions sends a hint each time a Task may have become Completed, and at least every half minute, until ctx
	// ends. The hint names no Task: list them.
	Completions(ctx context.Context) <-chan struct{}
}

// Domains keeps how long a client vouches for what it listed.
type Domains interface {
	// UpsertDomain makes a domain fresh for ttl; zero means for ever.
	UpsertDomain(ctx context.Context, domain string, ttl time.Duration) error
	// FreshDomains lists the domains that are fresh now.
	FreshDomains(ctx context.Context) ([]string, error)
}
