package controller

import (
	"testing"
	"time"

	"drover/cmd/drover/controller/recipe"

	"github.com/google/go-cmp/cmp"
)

func TestMerge_keepsWhatIsNotSaid(t *testing.T) {
	old := recipe.HealthCheck{Type: recipe.CheckHTTP, Endpoint: "/health", Timeout: time.Minute}
	for _, row := range []struct {
		promise string
		push    recipe.HealthCheck
		want    recipe.HealthCheck
	}{
		{"nothing said, nothing changed", recipe.HealthCheck{}, old},
		{"a start timeout changes no check", recipe.HealthCheck{Timeout: time.Second}, recipe.HealthCheck{Type: recipe.CheckHTTP, Endpoint: "/health", Timeout: time.Second}},
		{"a check changes no start timeout", recipe.HealthCheck{Type: recipe.CheckPort}, recipe.HealthCheck{Type: recipe.CheckPort, Timeout: time.Minute}},
	} {
		app := (&Controller{}).merge(recipe.App{Check: old}, true, Push{Check: row.push})
		if diff := cmp.Diff(row.want, app.Check); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.promise, diff)
		}
	}
}

func TestStagingError(t *testing.T) {
	for _, row := range []struct{ reason, want string }{
		{"STG: Exited with status 222", "NoAppDetectedError"},
		{"Exited with status 223", "BuildpackCompileFailed"},
		{"STG: Exited with status 224", "BuildpackReleaseFailed"},
		{"STG: Exited with status 222 (out of memory)", "StagingError"},
		{"insufficient resources: memory", "InsufficientResources"},
		{"found no compatible cell for required rootfs", "NoCompatibleCell"},
		{"task was cancelled", "StagingError"},
		{"", "StagingError"},
	} {
		if got := stagingError(row.reason); got != row.want {
			t.Errorf("%q is %s, want %s", row.reason, got, row.want)
		}
	}
}
