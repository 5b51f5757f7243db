package recipe

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"code.cloudfoundry.org/bbs/models"
)

const (
	certificatesPath = "/etc/cf-system-certificates"
	cellLogSource    = "CELL"
	appPort          = 8080
	appNoFile        = 16384
	// minWeightMB and maxWeightMB bound the memory that a process's share of the CPU follows.
	minWeightMB = 128
	maxWeightMB = 8192
)

// cpuWeight gives a process CPU in proportion to its memory, between 1 and 100.
func cpuWeight(memoryMB int32) uint32 {
	return uint32(100 * min(max(memoryMB, minWeightMB), maxWeightMB) / maxWeightMB)
}

// language is the container environment of buildpack apps.
func language() []*models.EnvironmentVariable {
	return []*models.EnvironmentVariable{{Name: "LANG", Value: "en_US.UTF-8"}}
}

// variables lists a map in the order of its names, so that the same app is always the same request.
func variables(env map[string]string) []*models.EnvironmentVariable {
	list := make([]*models.EnvironmentVariable, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, &models.EnvironmentVariable{Name: name, Value: env[name]})
	}
	return list
}

// appVariables is an app's own environment, then what the platform says about the app.
func appVariables(p Platform, a App, memoryMB int32) ([]*models.EnvironmentVariable, error) {
	uri := a.Hostname() + "." + p.SystemDomain
	application, err := json.Marshal(map[string]any{
		"application_id":      a.GUID,
		"application_name":    a.Name,
		"application_uris":    []string{uri},
		"application_version": a.Version,
		"cf_api":              p.CC,
		"limits":              map[string]any{"disk": a.DiskMB, "fds": appNoFile, "mem": memoryMB},
		"name":                a.Name,
		"organization_id":     a.Place.OrgGUID,
		"organization_name":   a.Place.OrgName,
		"process_id":          a.ProcessGUID,
		"process_type":        "web",
		"space_id":            a.Place.SpaceGUID,
		"space_name":          a.Place.SpaceName,
		"uris":                []string{uri},
		"users":               nil,
		"version":             a.Version,
	})
	if err != nil {
		return nil, fmt.Errorf("describe app %s: %w", a.Name, err)
	}
	return append(variables(a.Env),
		&models.EnvironmentVariable{Name: "VCAP_APPLICATION", Value: string(application)},
		&models.EnvironmentVariable{Name: "MEMORY_LIMIT", Value: fmt.Sprintf("%dm", memoryMB)},
		&models.EnvironmentVariable{Name: "VCAP_SERVICES", Value: "{}"},
	), nil
}

// metricTags label an app's logs and metrics.
func metricTags(a App) map[string]*models.MetricTagValue {
	tags := map[string]*models.MetricTagValue{}
	for name, value := range map[string]string{
		"source_id":         a.GUID,
		"process_id":        a.ProcessGUID,
		"process_type":      "web",
		"organization_id":   a.Place.OrgGUID,
		"organization_name": a.Place.OrgName,
		"space_id":          a.Place.SpaceGUID,
		"space_name":        a.Place.SpaceName,
		"app_id":            a.GUID,
		"app_name":          a.Name,
	} {
		tags[name] = &models.MetricTagValue{Static: value}
	}
	return tags
}

// instanceTags are metricTags and those that differ from instance to instance.
func instanceTags(a App) map[string]*models.MetricTagValue {
	tags := metricTags(a)
	tags["process_instance_id"] = &models.MetricTagValue{Dynamic: models.MetricTagDynamicValueInstanceGuid}
	tags["instance_id"] = &models.MetricTagValue{Dynamic: models.MetricTagDynamicValueIndex}
	return tags
}

// network tells a container network about the container's workload, one of "app", "task" and "staging".
func network(a App, workload string, ports []uint32) *models.Network {
	properties := map[string]string{
		"policy_group_id":    a.GUID,
		"app_id":             a.GUID,
		"space_id":           a.Place.SpaceGUID,
		"org_id":             a.Place.OrgGUID,
		"container_workload": workload,
	}
	if len(ports) > 0 {
		list := make([]string, 0, len(ports))
		for _, port := range ports {
			list = append(list, strconv.FormatUint(uint64(port), 10))
		}
		properties["ports"] = strings.Join(list, ",")
	}
	return &models.Network{Properties: properties}
}

// certificate names the owner of a container in the certificate that the platform gives it.
func certificate(a App) *models.CertificateProperties {
	return &models.CertificateProperties{OrganizationalUnit: []string{
		"organization:" + a.Place.OrgGUID,
		"space:" + a.Place.SpaceGUID,
		"app:" + a.GUID,
	}}
}

func nofile(limit uint64) *models.ResourceLimits {
	limits := &models.ResourceLimits{}
	limits.SetNofile(limit)
	return limits
}

func unlimitedLogs() *models.LogRateLimit {
	return &models.LogRateLimit{BytesPerSecond: -1}
}

// dropletURL is where a cell fetches a process's droplet; the checksum in it makes it the name of one content.
func dropletURL(p Platform, guid, sha256 string) string {
	return fmt.Sprintf("%s/internal/v4/droplets/%s/%s/download", p.CC, guid, sha256)
}

// fetchDroplet downloads the droplet to vcap's home.
func fetchDroplet(p Platform, a App) *models.DownloadAction {
	return &models.DownloadAction{
		From:              dropletURL(p, a.ProcessGUID, a.Droplet.SHA256),
		To:                ".",
		User:              "vcap",
		ChecksumAlgorithm: "sha256",
		ChecksumValue:     a.Droplet.SHA256,
	}
}

// lifecycle is the cached dependency that brings the builder, launcher and health check into a container.
func lifecycle(p Platform, d Droplet) (*models.CachedDependency, error) {
	name, key := "docker", "docker-lifecycle"
	if d.Lifecycle == Buildpack {
		name, key = "buildpack/"+d.Stack, "buildpack-"+d.Stack+"-lifecycle"
	}
	from, known := p.Lifecycles[name]
	if !known {
		return nil, fmt.Errorf("no lifecycle bundle is configured for %s", name)
	}
	return &models.CachedDependency{From: from, To: "/tmp/lifecycle", CacheKey: key}, nil
}

// rootFS is where a droplet's container gets its root file system from.
func rootFS(d Droplet) (string, error) {
	if d.Lifecycle == Docker {
		return ImageURL(d.Image)
	}
	return "preloaded:" + d.Stack, nil
}

// imageMetadata is what staging found out about an image; the capitals are the lifecycle's.
type imageMetadata struct {
	User  string `json:"user"`
	Ports []struct {
		Port     uint32 `json:"Port"`
		Protocol string `json:"Protocol"`
	} `json:"ports"`
}

func (d Droplet) metadata() (imageMetadata, error) {
	var metadata imageMetadata
	if d.Lifecycle != Docker {
		return metadata, nil
	}
	if err := json.Unmarshal([]byte(d.ExecutionMetadata), &metadata); err != nil {
		return metadata, fmt.Errorf("read execution metadata of image %s: %w", d.Image, err)
	}
	return metadata, nil
}

// runUser is the user that runs a droplet's processes.
func runUser(d Droplet) (string, error) {
	if d.Lifecycle == Buildpack {
		return "vcap", nil
	}
	metadata, err := d.metadata()
	if err != nil {
		return "", err
	}
	if metadata.User == "" {
		return "root", nil
	}
	return metadata.User, nil
}

// Ports are those that an app listens on: the TCP ports that its image exposes, else 8080.
func (d Droplet) Ports() ([]uint32, error) {
	metadata, err := d.metadata()
	if err != nil {
		return nil, err
	}
	var list []uint32
	for _, port := range metadata.Ports {
		if port.Protocol == "tcp" {
			list = append(list, port.Port)
		}
	}
	if len(list) == 0 {
		list = []uint32{appPort}
	}
	return list, nil
}
