package recipe

import (
	"fmt"

	"code.cloudfoundry.org/bbs/models"
)

// AppTask is a one-off command in an app's container.
type AppTask struct {
	GUID    string
	Name    string
	Command string
}

// Task is the Task that runs a one-off command with an app's droplet.
func Task(p Platform, a App, t AppTask) (*models.TaskDefinition, error) {
	bundle, err := lifecycle(p, a.Droplet)
	if err != nil {
		return nil, err
	}
	rootfs, err := rootFS(a.Droplet)
	if err != nil {
		return nil, err
	}
	user, err := runUser(a.Droplet)
	if err != nil {
		return nil, err
	}
	env, err := appVariables(p, a, a.MemoryMB)
	if err != nil {
		return nil, err
	}
	run := &models.RunAction{
		Path:           "/tmp/lifecycle/launcher",
		User:           user,
		Args:           []string{"app", t.Command, metadataOfTask(a.Droplet)},
		Env:            env,
		LogSource:      "APP/TASK/" + t.Name,
		ResourceLimits: nofile(appNoFile),
	}
	action := models.Serial(run)
	container := env
	if a.Droplet.Lifecycle == Buildpack {
		action = models.Serial(fetchDroplet(p, a), run)
		container = append(language(), env...)
	}
	return &models.TaskDefinition{
		RootFs:                        rootfs,
		EnvironmentVariables:          container,
		CompletionCallbackUrl:         fmt.Sprintf("%s/internal/v4/tasks/%s/completed", p.CC, t.GUID),
		CpuWeight:                     cpuWeight(a.MemoryMB),
		MemoryMb:                      a.MemoryMB,
		DiskMb:                        a.DiskMB,
		LogGuid:                       a.GUID,
		LogSource:                     cellLogSource,
		LogRateLimit:                  unlimitedLogs(),
		MetricTags:                    metricTags(a),
		EgressRules:                   p.EgressRules,
		TrustedSystemCertificatesPath: certificatesPath,
		Network:                       network(a, "task", nil),
		CertificateProperties:         certificate(a),
		CachedDependencies:            []*models.CachedDependency{bundle},
		LegacyDownloadUser:            "vcap",
		Action:                        models.WrapAction(action),
	}, nil
}

// metadataOfTask is the launcher's third argument: a Docker app's execution metadata, nothing for a droplet.
func metadataOfTask(d Droplet) string {
	if d.Lifecycle == Docker {
		return d.ExecutionMetadata
	}
	return ""
}
