package translate

import (
	"fmt"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"

	"drover/driver"
)

// Task makes the job of a Task and the run info for its driver. The epoch is another one for each Task, even of the same
// guid.
func Task(guid, domain, epoch string, definition *models.TaskDefinition, options Options) (Work, error) {
	if err := refuseTask(guid, definition); err != nil {
		return Work{}, err
	}
	options = options.WithDefaults()
	raw, err := definition.Marshal()
	if err != nil {
		return Work{}, fmt.Errorf("encode task %s: %w", guid, err)
	}
	info := driver.RunInfo{Kind: driver.KindTask, GUID: guid, Definition: raw}
	secrets, err := encodeSecrets(info, TaskJobID(guid), TaskGroup)
	if err != nil {
		return Work{}, err
	}
	limits, err := constraints(definition.RootFs, definition.PlacementTags)
	if err != nil {
		return Work{}, err
	}
	task := newTask(secrets, options, resources(definition.MemoryMb, definition.CpuWeight))
	group := newGroup(TaskGroup, 1, definition.DiskMb, task)
	group.Networks = []*api.NetworkResource{network(nil, options)}
	group.RestartPolicy = never()
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	job := newJob(jobNames{kind: driver.KindTask, guid: guid, domain: domain, epoch: epoch}, options, group)
	job.Type = new(api.JobTypeBatch)
	job.Constraints = limits
	return Work{Job: job, Secrets: secrets}, nil
}

func refuseTask(guid string, definition *models.TaskDefinition) error {
	switch {
	case !guidPattern.MatchString(guid):
		return Refuse("task_guid", "must be 1 to %d letters, digits, dashes and underscores", maxGUID)
	case definition.Privileged:
		return Refuse("privileged", "privileged containers are not supported")
	case len(definition.VolumeMounts) > 0:
		return Refuse("volume_mounts", "there is no volume driver of Diego on Nomad's nodes")
	case len(definition.VolumeMountedFiles) > 0:
		return Refuse("volume_mounted_files", "mounted files are not supported yet")
	case definition.MemoryMb <= 0:
		return Refuse("memory_mb", "must be positive: memory is always limited")
	}
	return refuseActions(definition.Action)
}
