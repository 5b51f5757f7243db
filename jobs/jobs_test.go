// Package jobs_test reads every jobspec of this directory as Nomad's own command would.
package jobs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"

	"drover/cmd/drover/serve"
)

func TestJobspecs(t *testing.T) {
	files, err := filepath.Glob("*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no jobspecs: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: file, Body: body, Strict: true})
			if err != nil {
				t.Fatal(err)
			}
			job.Canonicalize()
			if len(job.TaskGroups) == 0 {
				t.Fatal("it has no groups")
			}
			for _, group := range job.TaskGroups {
				for _, task := range group.Tasks {
					checkTask(t, task)
				}
			}
		})
	}
}

// The configuration that bridge.hcl renders holds what drover bridge knows; the files that it names are in the container.
func TestBridge_configuration(t *testing.T) {
	body, err := os.ReadFile("bridge.hcl")
	if err != nil {
		t.Fatal(err)
	}
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: "bridge.hcl", Body: body, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bridge.hcl")
	for _, template := range job.TaskGroups[0].Tasks[0].Templates {
		if *template.DestPath == "local/bridge.hcl" {
			if err := os.WriteFile(path, []byte(*template.EmbeddedTmpl), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	config, err := serve.Load(path)
	for mistake := range strings.Lines(fmt.Sprint(err)) {
		if !strings.Contains(mistake, "that exists") && !strings.Contains(mistake, "that can be read") {
			t.Error(mistake)
		}
	}
	if config.Nomad.TokenFile != "/secrets/nomad.token" || config.Listen.BBS != "0.0.0.0:8889" {
		t.Errorf("got %+v", config)
	}
}

func checkTask(t *testing.T, task *api.Task) {
	t.Helper()
	if len(task.Config) == 0 {
		t.Errorf("task %s has an empty config", task.Name)
	}
	if task.Resources == nil || task.Resources.MemoryMB == nil || *task.Resources.MemoryMB < 32 {
		t.Errorf("task %s does not say how much memory it needs", task.Name)
	}
}
