package nomad

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge/translate"
)

// Paths of records.
const (
	root         = "drover/"
	lrpsPath     = root + "lrps/"
	tasksPath    = root + "tasks/"
	domainsPath  = root + "domains/"
	recordItem   = "record"
	resultItem   = "result"
	maxRecord    = 60 << 10
	maxResult    = 50 << 10
	resolvingFor = 30 * time.Second
)

// header is the part of a record that says whether its job has been registered.
type header struct {
	Ready bool `json:"ready"`
	// Owner is the process that claimed the record.
	Owner string `json:"owner"`
	// Chunks is how many variables hold the run info.
	Chunks int `json:"chunks"`
	// CreatedAt and UpdatedAt are in nanoseconds.
	CreatedAt int64 `json:"created_at"`
	UpdatedAt int64 `json:"updated_at"`
}

func (h *header) head() *header { return h }

// headed is a record that stands for a job.
type headed interface {
	head() *header
	// registered is the same record, whose job has been registered. Whoever reads the index sees the claim until it has
	// been written.
	registered() headed
}

func (r *lrpRecord) registered() headed {
	ready := *r
	ready.Ready = true
	return &ready
}

func (r *taskRecord) registered() headed {
	ready := *r
	ready.Ready = true
	return &ready
}

// lrpRecord is what must be known of an LRP without reading its run info.
type lrpRecord struct {
	header
	ProcessGUID     string                            `json:"process_guid"`
	Domain          string                            `json:"domain"`
	LogGUID         string                            `json:"log_guid,omitempty"`
	RootFS          string                            `json:"rootfs"`
	Instances       int32                             `json:"instances"`
	MemoryMB        int32                             `json:"memory_mb"`
	DiskMB          int32                             `json:"disk_mb"`
	MaxPIDs         int32                             `json:"max_pids,omitempty"`
	PlacementTags   []string                          `json:"placement_tags,omitempty"`
	Ports           []uint32                          `json:"ports,omitempty"`
	CheckDefinition *models.CheckDefinition           `json:"check_definition,omitempty"`
	Annotation      string                            `json:"annotation,omitempty"`
	Routes          map[string]string                 `json:"routes,omitempty"`
	MetricTags      map[string]*models.MetricTagValue `json:"metric_tags,omitempty"`
	Epoch           string                            `json:"epoch"`
	Index           uint32                            `json:"index"`
}

func newLRPRecord(lrp *models.DesiredLRP, epoch string) *lrpRecord {
	record := &lrpRecord{
		ProcessGUID:     lrp.ProcessGuid,
		Domain:          lrp.Domain,
		LogGUID:         lrp.LogGuid,
		RootFS:          lrp.RootFs,
		MemoryMB:        lrp.MemoryMb,
		DiskMB:          lrp.DiskMb,
		MaxPIDs:         lrp.MaxPids,
		PlacementTags:   lrp.PlacementTags,
		Ports:           lrp.Ports,
		CheckDefinition: lrp.CheckDefinition,
		Epoch:           epoch,
	}
	record.change(lrp)
	return record
}

// change takes over what may change while instances run.
func (r *lrpRecord) change(lrp *models.DesiredLRP) {
	r.Instances = lrp.Instances
	r.Annotation = lrp.Annotation
	r.MetricTags = lrp.MetricTags
	r.Routes = nil
	if lrp.Routes != nil {
		r.Routes = map[string]string{}
		for key, value := range *lrp.Routes {
			if value != nil {
				r.Routes[key] = string(*value)
			}
		}
	}
}

// lrp returns the LRP as far as the record knows it.
func (r *lrpRecord) lrp() *models.DesiredLRP {
	lrp := &models.DesiredLRP{
		ProcessGuid:     r.ProcessGUID,
		Domain:          r.Domain,
		LogGuid:         r.LogGUID,
		RootFs:          r.RootFS,
		MemoryMb:        r.MemoryMB,
		DiskMb:          r.DiskMB,
		MaxPids:         r.MaxPIDs,
		PlacementTags:   r.PlacementTags,
		Ports:           r.Ports,
		CheckDefinition: r.CheckDefinition,
	}
	r.complete(lrp)
	return lrp
}

// complete adds to run info what the record has of it.
func (r *lrpRecord) complete(lrp *models.DesiredLRP) {
	lrp.Instances = r.Instances
	lrp.Annotation = r.Annotation
	lrp.ModificationTag = &models.ModificationTag{Epoch: r.Epoch, Index: r.Index}
	lrp.MetricTags = make(map[string]*models.MetricTagValue, len(r.MetricTags))
	for key, tag := range r.MetricTags {
		value := *tag
		lrp.MetricTags[key] = &value
	}
	if r.Routes != nil {
		routes := make(models.Routes, len(r.Routes))
		for key, value := range r.Routes {
			raw := json.RawMessage(value)
			routes[key] = &raw
		}
		lrp.Routes = &routes
	}
}

// States of a Task that are kept; others are read from its allocations.
const (
	taskCompleted = "completed"
	taskResolving = "resolving"
)

// taskRecord is what must be known of a Task without reading its definition.
type taskRecord struct {
	header
	GUID   string `json:"guid"`
	Domain string `json:"domain"`
	// WantsResult says that the definition has a result_file.
	WantsResult bool `json:"wants_result,omitempty"`

	State            string `json:"state,omitempty"`
	CellID           string `json:"cell_id,omitempty"`
	Failed           bool   `json:"failed,omitempty"`
	Reason           string `json:"reason,omitempty"`
	FirstCompletedAt int64  `json:"first_completed_at,omitempty"`
	// result is an item of its own, so that it need not be quoted.
	result string
}

// done says whether the Task has ended.
func (r *taskRecord) done() bool { return r.State != "" }

// state returns the kept state; a claim of the result that is too old has been given up.
func (r *taskRecord) state(now time.Time) models.Task_State {
	switch {
	case r.State == taskResolving && now.Sub(time.Unix(0, r.UpdatedAt)) <= resolvingFor:
		return models.Task_Resolving
	case r.done():
		return models.Task_Completed
	}
	return models.Task_Pending
}

// domainRecord is until when a domain is fresh.
type domainRecord struct {
	Domain string `json:"domain"`
	// Until is in nanoseconds, 0 for ever.
	Until int64 `json:"until"`
}

func lrpPath(guid string) string  { return lrpsPath + guid }
func taskPath(guid string) string { return tasksPath + guid }

// domainPath encodes a domain's name, which may hold anything, into what a path may hold.
func domainPath(domain string) string {
	return domainsPath + base64.RawURLEncoding.EncodeToString([]byte(domain))
}

// encodeRecord returns the items of a record's variable.
func encodeRecord(record any) (map[string]string, error) {
	raw, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if len(raw) > maxRecord {
		return nil, translate.Refuse("routes", "routes, annotation, metric tags and checks together must fit in %d KiB", maxRecord>>10)
	}
	items := map[string]string{recordItem: string(raw)}
	if task, is := record.(*taskRecord); is && task.result != "" {
		items[resultItem] = task.result
	}
	return items, nil
}

// decodeRecord reads the items of the variable at path.
func decodeRecord(path string, items map[string]string) (any, error) {
	var record any
	switch {
	case strings.HasPrefix(path, lrpsPath):
		record = &lrpRecord{}
	case strings.HasPrefix(path, tasksPath):
		record = &taskRecord{result: items[resultItem]}
	case strings.HasPrefix(path, domainsPath):
		record = &domainRecord{}
	default:
		return nil, fmt.Errorf("variable %s is no record of ours", path)
	}
	if err := json.Unmarshal([]byte(items[recordItem]), record); err != nil {
		return nil, fmt.Errorf("decode record %s: %w", path, err)
	}
	return record, nil
}
