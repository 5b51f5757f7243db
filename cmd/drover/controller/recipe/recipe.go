// Package recipe makes the requests that a Cloud Controller of today sends to Diego's BBS: the Task that stages an
// app, the Task that runs a one-off command, and the DesiredLRP that keeps an app's process running.
//
// Every function is pure. Given a Platform (what an operator writes into Cloud Controller's configuration) and the
// records of an app, it returns exactly the message that cloud_controller_ng would send, field by field, so that
// whoever serves these requests serves a real Cloud Controller too. Golden files in testdata show the messages whole.
package recipe

import (
	"time"

	"code.cloudfoundry.org/bbs/models"
)

// Domains under which Cloud Controller keeps its work.
const (
	DomainApps    = "cf-apps"
	DomainTasks   = "cf-tasks"
	DomainStaging = "cf-app-staging"
)

// Lifecycle types of an app.
const (
	Buildpack = "buildpack"
	Docker    = "docker"
)

// Health check types of a process.
const (
	CheckPort    = "port"
	CheckHTTP    = "http"
	CheckProcess = "process"
)

// Platform is the part of a Cloud Controller's configuration that its requests depend on.
type Platform struct {
	// CC is the base URL of Cloud Controller's internal API, spoken to with mutual TLS.
	CC string `json:"cc"`
	// CCUploader is the base URL of cc-uploader.
	CCUploader string `json:"cc_uploader"`
	// Lifecycles maps "buildpack/<stack>" and "docker" to the URLs of lifecycle bundles.
	Lifecycles map[string]string `json:"lifecycles"`
	// Stack is the root file system of buildpack apps, and of the Task that stages Docker apps.
	Stack string `json:"stack"`
	// InsecureRegistries are host:port of registries that are spoken to without TLS.
	InsecureRegistries []string `json:"insecure_registries,omitempty"`
	// SystemDomain is what apps' host names end in.
	SystemDomain string `json:"system_domain"`
	// Staging holds the least that a staging Task is given.
	Staging StagingLimits `json:"staging"`
	// PIDs is the limit of processes in a container.
	PIDs int32 `json:"pids"`
	// EgressRules are those of the security groups that apply to every space.
	EgressRules []*models.SecurityGroupRule `json:"egress_rules,omitempty"`
}

// StagingLimits are a platform's settings for staging.
type StagingLimits struct {
	Timeout  time.Duration `json:"timeout"`
	MemoryMB int32         `json:"memory_mb"`
	DiskMB   int32         `json:"disk_mb"`
	NoFile   uint64        `json:"nofile"`
}

// Place names the space and organization that an app belongs to.
type Place struct {
	OrgGUID   string `json:"org_guid"`
	OrgName   string `json:"org_name"`
	SpaceGUID string `json:"space_guid"`
	SpaceName string `json:"space_name"`
}

// App is an app with its only process, "web".
type App struct {
	GUID  string `json:"guid"`
	Name  string `json:"name"`
	Place Place  `json:"place"`
	// ProcessGUID and Version make the LRP's process guid; a new version is a new LRP.
	ProcessGUID string    `json:"process_guid"`
	Version     string    `json:"version"`
	UpdatedAt   time.Time `json:"updated_at"`
	Instances   int32     `json:"instances"`
	MemoryMB    int32     `json:"memory_mb"`
	DiskMB      int32     `json:"disk_mb"`
	// Command overrides the droplet's own start command when not empty.
	Command string            `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Check   HealthCheck       `json:"check"`
	Droplet Droplet           `json:"droplet"`
}

// HealthCheck is a process's health check.
type HealthCheck struct {
	Type     string `json:"type"`
	Endpoint string `json:"endpoint,omitempty"`
	// Timeout is how long a start may take.
	Timeout time.Duration `json:"timeout"`
}

// Droplet is the outcome of staging.
type Droplet struct {
	// Lifecycle is Buildpack or Docker.
	Lifecycle string `json:"lifecycle"`
	Stack     string `json:"stack,omitempty"`
	// SHA256 is the hex checksum of the droplet's file; empty for Docker apps.
	SHA256 string `json:"sha256,omitempty"`
	// Image is a Docker app's image reference as the user or the staging result gave it.
	Image             string            `json:"image,omitempty"`
	ProcessTypes      map[string]string `json:"process_types,omitempty"`
	ExecutionMetadata string            `json:"execution_metadata,omitempty"`
}

// LRPGUID is the process guid of an app's current LRP.
func (a App) LRPGUID() string {
	return a.ProcessGUID + "-" + a.Version
}

// Hostname is the first label of the app's route.
func (a App) Hostname() string {
	return a.Name
}
