package bridgetest

import (
	"encoding/json"

	"code.cloudfoundry.org/bbs/models"
)

// LRP returns a small valid DesiredLRP of two instances. It asks for a stack that no cell has, so that a Runtime
// with cells leaves its instances UNCLAIMED; set RootFs to have it run.
func LRP(processGUID string) *models.DesiredLRP {
	route := json.RawMessage(`[{"hostnames":["one.example.com"],"port":8080}]`)
	ssh := json.RawMessage(`{"container_port":2222,"private_key":"-----BEGIN…" , "host_fingerprint": "aa:bb"}`)
	return &models.DesiredLRP{
		ProcessGuid: processGUID,
		Domain:      "cf-apps",
		RootFs:      models.PreloadedRootFS("no-such-stack"),
		Instances:   2,
		MemoryMb:    64,
		DiskMb:      64,
		CpuWeight:   1,
		MaxPids:     128,
		Ports:       []uint32{8080},
		Routes:      &models.Routes{"cf-router": &route, "diego-ssh": &ssh},
		LogGuid:     "log-" + processGUID,
		LogSource:   "CELL",
		Annotation:  "1.0",
		EnvironmentVariables: []*models.EnvironmentVariable{
			{Name: "GREETING", Value: "hello"},
		},
		Action: models.WrapAction(&models.RunAction{
			Path: "/bin/sleep", Args: []string{"600"}, User: "vcap", LogSource: "APP/PROC/WEB",
		}),
		MetricTags: map[string]*models.MetricTagValue{
			"source_id":   {Static: "app-guid"},
			"instance_id": {Dynamic: models.MetricTagDynamicValueIndex},
		},
	}
}

// Task returns a small valid TaskDefinition. It asks for a stack that no cell has, like LRP.
func Task() *models.TaskDefinition {
	return &models.TaskDefinition{
		RootFs:     models.PreloadedRootFS("no-such-stack"),
		MemoryMb:   64,
		DiskMb:     64,
		CpuWeight:  1,
		LogSource:  "STG",
		LogGuid:    "log-guid",
		ResultFile: "/tmp/result.json",
		Annotation: "note",
		EnvironmentVariables: []*models.EnvironmentVariable{
			{Name: "GREETING", Value: "hello"},
		},
		Action: models.WrapAction(&models.RunAction{
			Path: "/bin/true", User: "vcap", LogSource: "STG",
		}),
	}
}
