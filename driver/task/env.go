package task

import (
	"encoding/json"
	"net"
	"strconv"

	"code.cloudfoundry.org/bbs/models"
)

// envList returns the variables of a map in the order of their names.
func envList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range sortedKeys(env) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// diegoEnv is the environment of the container of an LRP or Task, under each process's own.
func diegoEnv(image []string, d definition, guid, index string) []string {
	env := append([]string(nil), image...)
	if d.lrp {
		env = append(env, "INSTANCE_GUID="+guid, "INSTANCE_INDEX="+index, "CF_INSTANCE_GUID="+guid, "CF_INSTANCE_INDEX="+index)
	}
	for _, v := range d.env {
		env = append(env, variable(v))
	}
	return env
}

func variable(v *models.EnvironmentVariable) string { return v.Name + "=" + v.Value }

// portMapping is an element of CF_INSTANCE_PORTS.
type portMapping struct {
	External int `json:"external"`
	Internal int `json:"internal"`
}

// instanceEnv is what Diego appends to every process's environment: where the instance is found from outside.
func instanceEnv(hostIP, ownIP string, ports []Port) []string {
	mappings := make([]portMapping, 0, len(ports))
	for _, p := range ports {
		mappings = append(mappings, portMapping{External: p.Host, Internal: p.Container})
	}
	list, _ := json.Marshal(mappings) // a slice of ints: cannot fail
	env := []string{"CF_INSTANCE_IP=" + hostIP, "CF_INSTANCE_INTERNAL_IP=" + ownIP}
	if len(ports) > 0 {
		port := strconv.Itoa(ports[0].Host)
		env = append(env, "CF_INSTANCE_PORT="+port, "CF_INSTANCE_ADDR="+net.JoinHostPort(hostIP, port))
	} else {
		env = append(env, "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=")
	}
	return append(env, "CF_INSTANCE_PORTS="+string(list))
}

// orderPorts puts the mappings of an LRP's ports first, in the LRP's order: the first is the instance's main port.
func orderPorts(ports []Port, order []uint32) []Port {
	ordered := make([]Port, 0, len(ports))
	used := make([]bool, len(ports))
	for _, want := range order {
		for i, p := range ports {
			if !used[i] && p.Container == int(want) {
				ordered, used[i] = append(ordered, p), true
			}
		}
	}
	for i, p := range ports {
		if !used[i] {
			ordered = append(ordered, p)
		}
	}
	return ordered
}

// dropletEnv is what an app from a droplet expects of Cloud Foundry, where the jobspec says nothing else.
func dropletEnv(jobspec map[string]string, ports []Port, memoryMB int64) []string {
	env := []string{"LANG=en_US.UTF-8", "VCAP_APPLICATION={}", "VCAP_SERVICES={}", "MEMORY_LIMIT=" + strconv.FormatInt(memoryMB, 10) + "m"}
	if len(ports) > 0 {
		port := strconv.Itoa(ports[0].Container)
		env = append(env, "PORT="+port, "VCAP_APP_PORT="+port, "VCAP_APP_HOST=0.0.0.0")
	}
	return append(env, envList(jobspec)...)
}
