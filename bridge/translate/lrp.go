package translate

import (
	"fmt"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"

	"drover/driver"
)

// LRP makes the job of a DesiredLRP and the run info for its driver. Instances, routes, annotation, metric tags and
// modification tag are no part of the run info: they change while instances run. The tag's epoch must be that of the
// LRP's life.
func LRP(lrp *models.DesiredLRP, options Options) (Work, error) {
	if err := refuseLRP(lrp); err != nil {
		return Work{}, err
	}
	options = options.WithDefaults()
	secrets, err := lrpSecrets(lrp)
	if err != nil {
		return Work{}, err
	}
	limits, err := constraints(lrp.RootFs, lrp.PlacementTags)
	if err != nil {
		return Work{}, err
	}
	services, err := lrpServices(lrp, options)
	if err != nil {
		return Work{}, err
	}
	task := newTask(secrets, options, resources(lrp.MemoryMb, lrp.CpuWeight))
	task.Services = services
	group := newGroup(LRPGroup, int(lrp.Instances), lrp.DiskMb, task)
	group.Networks = []*api.NetworkResource{network(lrp.Ports, options)}
	group.RestartPolicy = crashRestart()
	group.ReschedulePolicy = crashReschedule()
	job := newJob(jobNames{kind: driver.KindLRP, guid: lrp.ProcessGuid, domain: lrp.Domain, epoch: lrp.ModificationTag.GetEpoch()}, options, group)
	job.Type = new(api.JobTypeService)
	// Deployments would wait for Nomad's own notion of health before they go on; the number of instances is the
	// caller's to change, and an update here never replaces one.
	job.Update = &api.UpdateStrategy{MaxParallel: new(0)}
	job.Constraints = limits
	return Work{Job: job, Secrets: secrets}, nil
}

// Revise changes a registered job into what an updated LRP asks for: its count and its services, nothing that would
// restart an instance, even if this version of Drover would make another job of the same LRP today.
func Revise(job *api.Job, lrp *models.DesiredLRP, options Options) error {
	for _, group := range job.TaskGroups {
		if group.Name == nil || *group.Name != LRPGroup {
			continue
		}
		for _, task := range group.Tasks {
			if task.Name != TaskName {
				continue
			}
			services, err := lrpServices(lrp, options.WithDefaults())
			if err != nil {
				return err
			}
			group.Count = new(int(lrp.Instances))
			task.Services = services
			return nil
		}
	}
	return fmt.Errorf("job of LRP %s has no task %s in group %s", lrp.ProcessGuid, TaskName, LRPGroup)
}

// RunInfoLRP returns the part of an LRP that its run info carries.
func RunInfoLRP(lrp *models.DesiredLRP) *models.DesiredLRP {
	fixed := lrp.Copy()
	fixed.Instances = 0
	fixed.Annotation = ""
	fixed.Routes = nil
	fixed.MetricTags = nil
	fixed.ModificationTag = nil
	return fixed
}

func lrpSecrets(lrp *models.DesiredLRP) ([]Secret, error) {
	definition, err := RunInfoLRP(lrp).Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode LRP %s: %w", lrp.ProcessGuid, err)
	}
	info := driver.RunInfo{Kind: driver.KindLRP, GUID: lrp.ProcessGuid, Definition: definition}
	return encodeSecrets(info, LRPJobID(lrp.ProcessGuid), LRPGroup)
}

func refuseLRP(lrp *models.DesiredLRP) error {
	switch {
	case !guidPattern.MatchString(lrp.ProcessGuid):
		return Refuse("process_guid", "must be 1 to %d letters, digits, dashes and underscores", maxGUID)
	case lrp.Privileged:
		return Refuse("privileged", "privileged containers are not supported")
	case len(lrp.VolumeMounts) > 0:
		return Refuse("volume_mounts", "there is no volume driver of Diego on Nomad's nodes")
	case len(lrp.VolumeMountedFiles) > 0:
		return Refuse("volume_mounted_files", "mounted files are not supported yet")
	case len(lrp.Sidecars) > 0:
		return Refuse("sidecars", "sidecars are not supported; use a codependent action")
	case lrp.MemoryMb <= 0:
		return Refuse("memory_mb", "must be positive: memory is always limited")
	}
	return refuseActions(lrp.Setup, lrp.Action, lrp.Monitor)
}
