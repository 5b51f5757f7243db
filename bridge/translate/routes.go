package translate

import (
	"encoding/json"
	"fmt"
	"strings"

	"code.cloudfoundry.org/bbs/models"
)

// The keys of Cloud Controller's routes that become tags.
const (
	httpRoutes     = "cf-router"
	tcpRoutes      = "tcp-router"
	internalRoutes = "internal-router"
)

type httpRoute struct {
	Hostnames []string `json:"hostnames"`
	Port      uint32   `json:"port"`
	Protocol  string   `json:"protocol"`
}

type tcpRoute struct {
	RouterGroupGUID string `json:"router_group_guid"`
	ExternalPort    uint32 `json:"external_port"`
	ContainerPort   uint32 `json:"container_port"`
}

type internalRoute struct {
	Hostname string `json:"hostname"`
}

// routeTags says what leads to a port, for whoever builds a router on Consul:
//
//	http:HOST[/PATH]         http2:HOST[/PATH]
//	tcp:ROUTER-GROUP:PORT    internal:HOST
//
// Internal routes name no port: they lead to the first.
//
// Routes are opaque to Diego: what cannot be read makes no tag and no error. Nothing else of a route gets into the
// job: the URL of a route service may hold credentials, and the ssh route a private key.
func routeTags(routes *models.Routes, port uint32, first bool) []string {
	var tags []string
	add := func(format string, args ...any) {
		if tag := fmt.Sprintf(format, args...); isRouteTag(tag) {
			tags = append(tags, tag)
		}
	}
	for _, route := range decodeRoutes[httpRoute](routes, httpRoutes) {
		kind := "http"
		if route.Protocol == "http2" {
			kind = "http2"
		}
		for _, host := range route.Hostnames {
			if route.Port == port {
				add("%s:%s", kind, host)
			}
		}
	}
	for _, route := range decodeRoutes[tcpRoute](routes, tcpRoutes) {
		if route.ContainerPort == port {
			add("tcp:%s:%d", route.RouterGroupGUID, route.ExternalPort)
		}
	}
	for _, route := range decodeRoutes[internalRoute](routes, internalRoutes) {
		if first {
			add("internal:%s", route.Hostname)
		}
	}
	return sortedUnique(tags)
}

func decodeRoutes[T any](routes *models.Routes, key string) []T {
	if routes == nil || (*routes)[key] == nil {
		return nil
	}
	var list []T
	if err := json.Unmarshal(*(*routes)[key], &list); err != nil {
		return nil
	}
	return list
}

// isRouteTag refuses what Nomad would interpolate, a userinfo, and what no host name or path holds.
func isRouteTag(tag string) bool {
	return len(tag) <= 512 && !strings.ContainsAny(tag, "${}@?# \t\r\n\"'\\")
}

// internalHostnames are kept with each instance.
func internalHostnames(routes *models.Routes) []*models.ActualLRPInternalRoute {
	var result []*models.ActualLRPInternalRoute
	for _, route := range decodeRoutes[internalRoute](routes, internalRoutes) {
		result = append(result, &models.ActualLRPInternalRoute{Hostname: route.Hostname})
	}
	return result
}
