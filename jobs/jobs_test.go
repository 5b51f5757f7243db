// Package jobs_test reads every jobspec of this directory as Nomad's own command would.
package jobs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
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

func checkTask(t *testing.T, task *api.Task) {
	t.Helper()
	if len(task.Config) == 0 {
		t.Errorf("task %s has an empty config", task.Name)
	}
	if task.Resources == nil || task.Resources.MemoryMB == nil || *task.Resources.MemoryMB < 32 {
		t.Errorf("task %s does not say how much memory it needs", task.Name)
	}
}
