package recipe

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"code.cloudfoundry.org/bbs/models"
)

// monitorTimeout bounds one run of the health checks.
const monitorTimeout = 10 * time.Minute

// LRP is the DesiredLRP of an app's process.
func LRP(p Platform, a App) (*models.DesiredLRP, error) {
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
	ports, err := a.Droplet.Ports()
	if err != nil {
		return nil, err
	}
	launcher, err := launch(p, a, user, ports[0])
	if err != nil {
		return nil, err
	}
	routes, err := Routes(p, a)
	if err != nil {
		return nil, err
	}
	lrp := &models.DesiredLRP{
		ProcessGuid:                   a.LRPGUID(),
		Domain:                        DomainApps,
		RootFs:                        rootfs,
		Instances:                     a.Instances,
		Annotation:                    Annotation(a),
		LogGuid:                       a.GUID,
		MetricsGuid:                   a.GUID,
		LogSource:                     cellLogSource,
		LogRateLimit:                  unlimitedLogs(),
		MemoryMb:                      a.MemoryMB,
		DiskMb:                        a.DiskMB,
		MaxPids:                       p.PIDs,
		CpuWeight:                     cpuWeight(a.MemoryMB),
		StartTimeoutMs:                a.Check.Timeout.Milliseconds(),
		EgressRules:                   p.EgressRules,
		TrustedSystemCertificatesPath: certificatesPath,
		Network:                       network(a, "app", ports),
		CertificateProperties:         certificate(a),
		MetricTags:                    instanceTags(a),
		Routes:                        routes,
		Ports:                         ports,
		CachedDependencies:            []*models.CachedDependency{bundle},
		LegacyDownloadUser:            user,
		Action:                        models.WrapAction(models.Codependent(launcher)),
		Monitor:                       monitor(a, user, ports),
		CheckDefinition:               checks(a, ports),
	}
	if a.Droplet.Lifecycle == Buildpack {
		download := fetchDroplet(p, a)
		download.CacheKey = "droplets-" + a.LRPGUID()
		lrp.EnvironmentVariables = language()
		lrp.Setup = models.WrapAction(models.Serial(download))
	}
	return lrp, nil
}

// Update is what Cloud Controller sends when an app is scaled or otherwise changed without a restart.
func Update(p Platform, a App) (*models.DesiredLRPUpdate, error) {
	routes, err := Routes(p, a)
	if err != nil {
		return nil, err
	}
	update := &models.DesiredLRPUpdate{Routes: routes, MetricTags: instanceTags(a)}
	update.SetInstances(a.Instances)
	update.SetAnnotation(Annotation(a))
	return update, nil
}

// Annotation is the time of an app's last change, in seconds as Ruby prints them; the sync compares it as text.
func Annotation(a App) string {
	seconds := float64(a.UpdatedAt.UnixMicro()) / 1e6
	text := strconv.FormatFloat(seconds, 'f', -1, 64)
	if seconds == float64(int64(seconds)) {
		text += ".0"
	}
	return text
}

// Routes are an app's routes, for the routers that know how to read them.
func Routes(p Platform, a App) (*models.Routes, error) {
	ports, err := a.Droplet.Ports()
	if err != nil {
		return nil, err
	}
	routes := models.Routes{}
	for key, value := range map[string]any{
		"cf-router": []map[string]any{{
			"hostnames":         []string{a.Hostname() + "." + p.SystemDomain},
			"port":              ports[0],
			"route_service_url": nil,
			"isolation_segment": nil,
			"protocol":          "http1",
		}},
		"tcp-router":      []any{},
		"internal-router": []any{},
	} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("describe routes of app %s: %w", a.Name, err)
		}
		raw := json.RawMessage(text)
		routes[key] = &raw
	}
	return &routes, nil
}

func launch(p Platform, a App, user string, first uint32) (*models.RunAction, error) {
	env, err := appVariables(p, a, a.MemoryMB)
	if err != nil {
		return nil, err
	}
	port := strconv.FormatUint(uint64(first), 10)
	env = append(env, &models.EnvironmentVariable{Name: "PORT", Value: port})
	command := a.Command
	if a.Droplet.Lifecycle == Buildpack {
		env = append(env,
			&models.EnvironmentVariable{Name: "VCAP_APP_PORT", Value: port},
			&models.EnvironmentVariable{Name: "VCAP_APP_HOST", Value: "0.0.0.0"})
		if command == "" {
			command = a.Droplet.ProcessTypes["web"]
		}
	}
	return &models.RunAction{
		Path:           "/tmp/lifecycle/launcher",
		User:           user,
		Args:           []string{"app", command, a.Droplet.ExecutionMetadata},
		Env:            env,
		LogSource:      "APP/PROC/WEB",
		ResourceLimits: nofile(appNoFile),
	}, nil
}

// monitor runs the health check program in the container; cells of today use the check definition instead.
func monitor(a App, user string, ports []uint32) *models.Action {
	if a.Check.Type == CheckProcess {
		return nil
	}
	runs := make([]models.ActionInterface, 0, len(ports))
	for i, port := range ports {
		args := []string{fmt.Sprintf("-port=%d", port)}
		if i == 0 && a.Check.Type == CheckHTTP {
			args = append(args, "-uri="+a.Check.Endpoint)
		}
		runs = append(runs, &models.RunAction{
			Path:              "/tmp/lifecycle/healthcheck",
			User:              user,
			Args:              args,
			ResourceLimits:    nofile(1024),
			LogSource:         "HEALTH",
			SuppressLogOutput: true,
		})
	}
	return models.WrapAction(models.Timeout(models.Parallel(runs...), monitorTimeout))
}

func checks(a App, ports []uint32) *models.CheckDefinition {
	if a.Check.Type == CheckProcess {
		return nil
	}
	definition := &models.CheckDefinition{LogSource: "HEALTH"}
	for i, port := range ports {
		check := &models.Check{TcpCheck: &models.TCPCheck{Port: port}}
		if i == 0 && a.Check.Type == CheckHTTP {
			check = &models.Check{HttpCheck: &models.HTTPCheck{Port: port, Path: a.Check.Endpoint}}
		}
		definition.Checks = append(definition.Checks, check)
	}
	return definition
}
