package translate

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

const (
	// minMemoryMB and minDiskMB are the least that Nomad takes; log files count as disk.
	minMemoryMB = 10
	minDiskMB   = 20
	logFiles    = 2
	logFileMB   = 5

	// sharesPerWeight is what a cpu_weight of 100 is worth, in Diego in cpu.shares. Nomad's MHz become the
	// container's shares one to one, so that Diego's proportions between containers stay as they are.
	sharesPerWeight = 1024
	minCPU          = 10
)

// tagsKey is the key of a client's meta that holds its placement tags, separated by commas.
const tagsKey = "${meta.drover_placement_tags}"

type jobNames struct{ kind, guid, domain, epoch string }

func newJob(names jobNames, options Options, group *api.TaskGroup) *api.Job {
	id := names.kind + "-" + names.guid
	return &api.Job{
		ID:          new(id),
		Name:        new(id),
		Region:      new(options.Region),
		Namespace:   new(options.Namespace),
		NodePool:    new(options.NodePool),
		Datacenters: options.Datacenters,
		TaskGroups:  []*api.TaskGroup{group},
		// Meta holds only what never changes in the life of an LRP: a change of meta restarts every instance.
		Meta: map[string]string{
			MetaKind:   names.kind,
			MetaGUID:   names.guid,
			MetaDomain: names.domain,
			MetaSchema: Schema,
			MetaEpoch:  names.epoch,
		},
	}
}

func newGroup(name string, count int, diskMB int32, task *api.Task) *api.TaskGroup {
	return &api.TaskGroup{
		Name:          new(name),
		Count:         new(count),
		EphemeralDisk: &api.EphemeralDisk{SizeMB: new(max(int(diskMB), minDiskMB)), Sticky: new(false), Migrate: new(false)},
		Tasks:         []*api.Task{task},
	}
}

func newTask(secrets []Secret, options Options, need *api.Resources) *api.Task {
	return &api.Task{
		Name:        TaskName,
		Driver:      Driver,
		Config:      map[string]any{"run_info": true},
		Env:         map[string]string{driver.NodeIPEnv: "${attr.unique.network.ip-address}"},
		Templates:   []*api.Template{runInfoTemplate(secrets)},
		Resources:   need,
		KillSignal:  "SIGTERM",
		KillTimeout: new(options.KillTimeout),
		LogConfig:   &api.LogConfig{MaxFiles: new(logFiles), MaxFileSizeMB: new(logFileMB)},
	}
}

func resources(memoryMB int32, cpuWeight uint32) *api.Resources {
	return &api.Resources{
		CPU:      new(max(int(cpuWeight)*sharesPerWeight/100, minCPU)),
		MemoryMB: new(max(int(memoryMB), minMemoryMB)),
	}
}

// PortLabel returns the label of a container's port.
func PortLabel(port uint32) string { return fmt.Sprintf("p%d", port) }

func network(ports []uint32, options Options) *api.NetworkResource {
	result := &api.NetworkResource{Mode: options.Network}
	for _, port := range ports {
		if options.Network == "host" {
			result.ReservedPorts = append(result.ReservedPorts, api.Port{Label: PortLabel(port), Value: int(port)})
			continue
		}
		result.DynamicPorts = append(result.DynamicPorts, api.Port{Label: PortLabel(port), To: int(port)})
	}
	return result
}

// crashRestart is the first half of Diego's crash policy: two restarts at once, forgotten after five minutes.
func crashRestart() *api.RestartPolicy {
	return &api.RestartPolicy{
		Attempts: new(models.DefaultImmediateRestarts - 1),
		Interval: new(models.CrashResetTimeout),
		Delay:    new(time.Duration(0)),
		Mode:     new("fail"),
	}
}

// crashReschedule is the second half: from 30 s to 16 min between further attempts, for ever.
func crashReschedule() *api.ReschedulePolicy {
	return &api.ReschedulePolicy{
		Attempts:      new(0),
		Interval:      new(time.Duration(0)),
		Delay:         new(models.CrashBackoffMinDuration),
		DelayFunction: new("exponential"),
		MaxDelay:      new(models.DefaultMaxBackoffDuration),
		Unlimited:     new(true),
	}
}

func never() *api.RestartPolicy {
	return &api.RestartPolicy{
		Attempts: new(0),
		Interval: new(models.CrashResetTimeout),
		Delay:    new(time.Duration(0)),
		Mode:     new("fail"),
	}
}

var stackPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// constraints says which nodes can run a root file system, among those with the very placement tags.
func constraints(rootFS string, tags []string) ([]*api.Constraint, error) {
	parsed, err := url.Parse(rootFS)
	if err != nil {
		return nil, Refuse("rootfs", "is not a URL")
	}
	// Credentials have fields of their own, which are secret; a root file system's name gets into logs and events.
	if parsed.User != nil || parsed.RawQuery != "" {
		return nil, Refuse("rootfs", "must hold neither credentials nor a query")
	}
	var result []*api.Constraint
	switch parsed.Scheme {
	case models.PreloadedRootFSScheme:
		if !stackPattern.MatchString(parsed.Opaque) {
			return nil, Refuse("rootfs", "stack %q is not a name of letters, digits, dashes and underscores", parsed.Opaque)
		}
		result = append(result, api.NewConstraint(stackAttribute(parsed.Opaque), api.ConstraintAttributeIsSet, ""))
	case "docker":
		if strings.Trim(parsed.Path, "/") == "" {
			return nil, Refuse("rootfs", "names no image")
		}
	default:
		return nil, Refuse("rootfs", "scheme %q is neither %s nor docker", parsed.Scheme, models.PreloadedRootFSScheme)
	}
	for _, tag := range tags {
		if strings.Contains(tag, ",") || strings.Contains(tag, "${") || tag == "" {
			return nil, Refuse("PlacementTags", "tag %q must not be empty or hold a comma", tag)
		}
		result = append(result, api.NewConstraint(tagsKey, api.ConstraintSetContains, tag))
	}
	if len(tags) == 0 {
		result = append(result, api.NewConstraint(tagsKey, api.ConstraintAttributeIsNotSet, ""))
	}
	return result, nil
}

// stackPrefix begins the attribute that a node with a stack has.
const stackPrefix = "${attr.driver." + Driver + ".stack."

func stackAttribute(stack string) string { return stackPrefix + stack + "}" }
