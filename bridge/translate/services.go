package translate

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"
)

const (
	// processGUIDLength is the part of a Cloud Controller's process guid that stays the same in all versions of an app.
	processGUIDLength = 36

	defaultCheckInterval = 2 * time.Second
	defaultCheckTimeout  = time.Second
	// minCheck is the least interval and timeout that Nomad takes.
	minCheck = time.Second
)

// ServiceName returns the name under which instances of an LRP are found: cf-<guid> for its first port,
// cf-<guid>-<port> for others. All versions of an app share it.
func ServiceName(processGUID string, ports []uint32, port uint32) string {
	guid := processGUID[:min(len(processGUID), processGUIDLength)]
	name := "cf-" + strings.Trim(strings.ReplaceAll(guid, "_", "-"), "-")
	if len(ports) > 0 && ports[0] == port {
		return name
	}
	return fmt.Sprintf("%s-%d", name, port)
}

// lrpServices makes one service for each port. They belong to the task and not to its group, so that they come with
// each start of the container and go with its end, whatever Nomad does next with the allocation.
func lrpServices(lrp *models.DesiredLRP, options Options) ([]*api.Service, error) {
	if options.Services == ServicesNone {
		return nil, nil
	}
	var services []*api.Service
	for i, port := range lrp.Ports {
		checks, err := portChecks(lrp.CheckDefinition, port)
		if err != nil {
			return nil, err
		}
		services = append(services, &api.Service{
			Name:      ServiceName(lrp.ProcessGuid, lrp.Ports, port),
			PortLabel: PortLabel(port),
			Provider:  options.Services,
			Tags:      append([]string{"drover"}, routeTags(lrp.Routes, port, i == 0)...),
			Meta:      serviceMeta(lrp, port, options),
			Checks:    checks,
		})
	}
	return services, nil
}

// serviceMeta is kept by Consul only; Nomad's own registry has no meta.
func serviceMeta(lrp *models.DesiredLRP, port uint32, options Options) map[string]string {
	if options.Services != ServicesConsul {
		return nil
	}
	return map[string]string{
		"drover_guid":   lrp.ProcessGuid,
		"drover_domain": literal(lrp.Domain),
		"drover_log":    literal(lrp.LogGuid),
		"drover_port":   fmt.Sprint(port),
		"drover_index":  "${NOMAD_ALLOC_INDEX}",
		"drover_alloc":  "${NOMAD_ALLOC_ID}",
	}
}

// literal empties what Nomad would interpolate.
func literal(text string) string {
	if strings.Contains(text, "${") {
		return ""
	}
	return text
}

func portChecks(definition *models.CheckDefinition, port uint32) ([]api.ServiceCheck, error) {
	if definition == nil {
		return nil, nil
	}
	var checks []api.ServiceCheck
	for _, list := range []struct {
		name   string
		checks []*models.Check
	}{{"check", definition.Checks}, {"readiness", definition.ReadinessChecks}} {
		for _, check := range list.checks {
			made, err := portCheck(check, port)
			if err != nil {
				return nil, err
			}
			if made == nil {
				continue
			}
			made.Name = fmt.Sprintf("%s %s %d", list.name, made.Type, len(checks)+1)
			checks = append(checks, *made)
		}
	}
	return checks, nil
}

// portCheck makes a check of one port, nil when it is about another.
func portCheck(check *models.Check, port uint32) (*api.ServiceCheck, error) {
	switch {
	case check.GetHttpCheck() != nil && check.HttpCheck.Port == port:
		http := check.HttpCheck
		path := http.Path
		if path == "" {
			path = "/"
		}
		if parsed, err := url.Parse(path); err != nil || parsed.IsAbs() || parsed.Host != "" || strings.Contains(path, "${") {
			return nil, Refuse("check_definition", "the path of the http check of port %d is not a path", port)
		}
		return &api.ServiceCheck{
			Type:     "http",
			Path:     path,
			Interval: milliseconds(http.IntervalMs, defaultCheckInterval),
			Timeout:  milliseconds(http.RequestTimeoutMs, defaultCheckTimeout),
		}, nil
	case check.GetTcpCheck() != nil && check.TcpCheck.Port == port:
		tcp := check.TcpCheck
		return &api.ServiceCheck{
			Type:     "tcp",
			Interval: milliseconds(tcp.IntervalMs, defaultCheckInterval),
			Timeout:  milliseconds(tcp.ConnectTimeoutMs, defaultCheckTimeout),
		}, nil
	}
	return nil, nil
}

func milliseconds(given uint64, otherwise time.Duration) time.Duration {
	if given == 0 {
		return otherwise
	}
	return max(time.Duration(min(given, uint64(time.Hour/time.Millisecond)))*time.Millisecond, minCheck)
}

// sortedUnique is for tags, whose order must not depend on a map's.
func sortedUnique(tags []string) []string {
	slices.Sort(tags)
	return slices.Compact(tags)
}
