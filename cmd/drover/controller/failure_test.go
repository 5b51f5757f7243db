package controller

import "testing"

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
