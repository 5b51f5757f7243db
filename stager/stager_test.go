package stager_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/stager"
)

func TestCodeOf(t *testing.T) {
	wrapped := fmt.Errorf("outer: %w", stager.Fail(stager.ExitSupplyFailed, "inner: %w", io.ErrUnexpectedEOF))
	for _, row := range []struct {
		promise string
		err     error
		want    stager.ExitCode
	}{
		{"no error is success", nil, 0},
		{"any other error is 1", io.EOF, 1},
		{"a failure keeps its code when wrapped", wrapped, 225},
		{"a failure keeps its code when joined", errors.Join(wrapped, io.EOF), 225},
	} {
		if got := stager.CodeOf(row.err); got != row.want {
			t.Errorf("%s: got %d, want %d", row.promise, got, row.want)
		}
	}
	if !errors.Is(wrapped, io.ErrUnexpectedEOF) {
		t.Error("a failure hides its cause")
	}
}

// TestResults_json: these texts are read by Cloud Controller, which checks them against a schema.
func TestResults_json(t *testing.T) {
	for _, row := range []struct {
		promise string
		value   any
		want    string
	}{
		{
			"a whole buildpack result",
			stager.BuildpackResult{
				LifecycleType: stager.LifecycleBuildpack,
				LifecycleMetadata: stager.BuildpackMetadata{
					BuildpackKey: "k", DetectedBuildpack: "d", Buildpacks: []stager.Buildpack{{Key: "k", Name: "n", Version: "1"}},
				},
				ProcessTypes: stager.ProcessTypes{"web": "w"},
				Processes:    []stager.Process{{Type: "web", Command: "w"}},
				Sidecars:     []stager.Sidecar{{Name: "s", ProcessTypes: []string{"web"}, Command: "c", Memory: 1}},
			},
			`{"lifecycle_type":"buildpack","lifecycle_metadata":{"buildpack_key":"k","detected_buildpack":"d","buildpacks":[{"key":"k","name":"n","version":"1"}]},` +
				`"process_types":{"web":"w"},"processes":[{"type":"web","command":"w"}],"sidecars":[{"name":"s","process_types":["web"],"command":"c","memory":1}],"execution_metadata":""}`,
		},
		{
			"a docker result",
			stager.DockerResult{LifecycleType: stager.LifecycleDocker, LifecycleMetadata: stager.DockerMetadata{DockerImage: "i"}, ProcessTypes: stager.ProcessTypes{"web": ""}},
			`{"lifecycle_type":"docker","lifecycle_metadata":{"docker_image":"i"},"process_types":{"web":""},"execution_metadata":""}`,
		},
		{
			"ports have capitals",
			stager.ExecutionMetadata{Cmd: []string{"c"}, Entrypoint: []string{"e"}, Workdir: "/w", User: "u", Ports: []stager.Port{{Port: 80, Protocol: "tcp"}}},
			`{"cmd":["c"],"entrypoint":["e"],"workdir":"/w","ports":[{"Port":80,"Protocol":"tcp"}],"user":"u"}`,
		},
		{"empty execution metadata is an object", stager.ExecutionMetadata{}, `{}`},
	} {
		got, err := json.Marshal(row.value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.promise, diff)
		}
	}
}
