// Package translate turns Diego's cooked vocabulary into Nomad's, and Nomad's answers back. Every function is pure: no
// clock, randomness, environment or network, so that the same request always makes the same job.
//
//	LRP         a DesiredLRP          → a service job and its secrets
//	Revise      a changed DesiredLRP  → changes of the registered job that restart nothing
//	Task        a TaskDefinition      → a batch job and its secrets
//	Actuals     allocations           → the ActualLRPs of an LRP
//	TaskOf      allocations           → how far a Task is
//	Placement   a blocked evaluation  → Diego's placement error
//
// A job says where and how much, never what: environment, action tree, credentials and URLs are run info, which
// travels in Nomad Variables below the job's own path and is rendered by a template into a directory that the
// container does not see. A request for something that is not honoured is refused with a models.Error that names the
// field; what is carried but not yet acted upon is listed in testdata/fields.md.
package translate

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"
)

// Schema is the version of the jobs that this package makes, kept in their meta.
const Schema = "1"

// Names in the jobs that this package makes.
const (
	Driver    = "drover"
	TaskName  = "app"
	LRPGroup  = "lrp"
	TaskGroup = "task"

	MetaKind   = "drover_kind"
	MetaGUID   = "drover_guid"
	MetaDomain = "drover_domain"
	MetaSchema = "drover_schema"
	// MetaEpoch is another one for each life of a guid: Nomad takes the allocations of a job that was removed a moment
	// ago for those of its namesake, unless something in it differs.
	MetaEpoch = "drover_epoch"

	lrpPrefix  = "lrp-"
	taskPrefix = "task-"
)

// Where services of LRPs are registered.
const (
	ServicesConsul = "consul"
	ServicesNomad  = "nomad"
	ServicesNone   = "none"
)

// Options are the operator's part of every job.
type Options struct {
	// Region, Namespace and NodePool may be empty for Nomad's defaults; Datacenters for all.
	Region      string   `json:"region,omitempty"`
	Namespace   string   `json:"namespace,omitempty"`
	NodePool    string   `json:"node_pool,omitempty"`
	Datacenters []string `json:"datacenters,omitempty"`
	// Network is the network mode of every container: bridge (the default), cni/<name>, or host, in which ports are
	// the host's own and a node holds one instance of an LRP.
	Network string `json:"network,omitempty"`
	// Services is where instances are registered: consul (the default), nomad, or none.
	Services string `json:"services,omitempty"`
	// KillTimeout is between SIGTERM and SIGKILL; 10 s by default.
	KillTimeout time.Duration `json:"kill_timeout,omitempty"`
}

// WithDefaults returns the options with every default filled in.
func (o Options) WithDefaults() Options {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&o.Region, "global")
	fill(&o.Namespace, api.DefaultNamespace)
	fill(&o.NodePool, "default")
	fill(&o.Network, "bridge")
	fill(&o.Services, ServicesConsul)
	if len(o.Datacenters) == 0 {
		o.Datacenters = []string{"*"}
	}
	if o.KillTimeout <= 0 {
		o.KillTimeout = 10 * time.Second
	}
	return o
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	o = o.WithDefaults()
	switch o.Services {
	case ServicesConsul, ServicesNomad, ServicesNone:
	default:
		return fmt.Errorf("services: %q is none of %s, %s, %s", o.Services, ServicesConsul, ServicesNomad, ServicesNone)
	}
	if o.Network != "bridge" && o.Network != "host" && !strings.HasPrefix(o.Network, "cni/") {
		return fmt.Errorf("network: %q is none of bridge, host, cni/<name>", o.Network)
	}
	return nil
}

// Work is what Nomad needs to run an LRP or a Task.
type Work struct {
	Job     *api.Job
	Secrets []Secret
}

// Secret is one Nomad Variable of the job's run info; its text is in item RunInfoItem.
type Secret struct {
	Path string
	Text string
}

// RunInfoItem is the item of a Nomad Variable that holds run info.
const RunInfoItem = "run_info"

// LRPJobID returns the id of an LRP's job.
func LRPJobID(processGUID string) string { return lrpPrefix + processGUID }

// TaskJobID returns the id of a Task's job.
func TaskJobID(guid string) string { return taskPrefix + guid }

// maxGUID keeps the paths of variables (nomad/jobs/<job>/<group>/<task>) within Nomad's 128 bytes.
const maxGUID = 100

var guidPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,` + fmt.Sprint(maxGUID) + `}$`)

// Refuse returns the error for a field that cannot be honoured.
func Refuse(field, format string, args ...any) *models.Error {
	return models.NewError(models.Error_InvalidRequest, fmt.Sprintf("Invalid field: %s (%s)", field, fmt.Sprintf(format, args...)))
}
