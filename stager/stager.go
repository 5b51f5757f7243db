// Package stager says what staging gives back: results, exit codes, and the paths that both sides know.
//
// Staging is a Task: builder turns an app and buildpacks into a droplet and a result, and launcher starts the droplet.
// The programs run inside containers and are one binary, cmd/drover-lifecycle; the packages below this one are what it
// does, each usable without it:
//
//	build      builder: detect or supply, finalize, release, pack
//	buildpack  one buildpack on disk, and buildpacks fetched by URL
//	droplet    directory trees to compressed archives owned by vcap
//	docker     what an image wants to run, asked of its registry
//	launch     launcher and shell: the environment and command of a droplet's or an image's process
//	check      healthcheck
//	vcap       what is derived from the VCAP_* variables
//	trust      the platform's trusted certificates
//	bundle     the archives that a Cloud Controller's recipes download; our own buildpacks and sample apps
//
// Names of fields, files and numbers are those of Cloud Foundry's own lifecycles, because Cloud Controller reads them.
// This package imports the standard library only.
package stager

import (
	"errors"
	"fmt"
)

// ExitCode is what a lifecycle program ends with. Cloud Controller shows staging errors by the last three digits of a
// Task's failure reason, so these numbers are part of the contract.
type ExitCode int

// The exit codes of builder and launcher. The healthcheck has its own, in package check.
const (
	ExitOK              ExitCode = 0
	ExitError           ExitCode = 1   // Wrong usage, and everything without a number of its own.
	ExitDocker          ExitCode = 2   // The image's metadata could not be read.
	ExitEnvironment     ExitCode = 3   // VCAP_PLATFORM_OPTIONS or the environment is not understood.
	ExitCredHub         ExitCode = 4   // CredHub references could not be resolved. For the launcher: see ExitExec.
	ExitDatabaseURL     ExitCode = 5   // DATABASE_URL could not be derived.
	ExitDetectFailed    ExitCode = 222 // No buildpack claimed the app.
	ExitCompileFailed   ExitCode = 223 // The final buildpack failed.
	ExitReleaseFailed   ExitCode = 224 // The final buildpack did not say how to start the app.
	ExitSupplyFailed    ExitCode = 225 // A buildpack before the final one failed.
	ExitFinalizeReserve ExitCode = 226 // Reserved: a failed finalize has always been reported as ExitCompileFailed.

	// ExitExec is the launcher's: the start command could not be executed.
	ExitExec ExitCode = 4
)

// Failure is an error that decides the exit code of the program.
type Failure struct {
	Code ExitCode
	Err  error
}

// Error says what happened.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Fail returns a Failure with a formatted cause; %w wraps.
func Fail(code ExitCode, format string, args ...any) error {
	return &Failure{Code: code, Err: fmt.Errorf(format, args...)}
}

// CodeOf returns the exit code that an error asks for: ExitOK for nil, ExitError for an error that asks for none.
func CodeOf(err error) ExitCode {
	if err == nil {
		return ExitOK
	}
	var f *Failure
	if errors.As(err, &f) {
		return f.Code
	}
	return ExitError
}

// The values of lifecycle_type in results.
const (
	LifecycleBuildpack = "buildpack"
	LifecycleDocker    = "docker"
)

// MarkerFile is the name of a file beside the lifecycle binary. When it holds the word docker, builder and launcher are
// the Docker lifecycle's.
const MarkerFile = "lifecycle.txt"

// ProcessTypes maps the name of a process (web, worker) to its start command. A nil map is written as null: that is how
// a failed staging is told from one without processes.
type ProcessTypes map[string]string

// Process is one start command, where order matters.
type Process struct {
	Type    string `json:"type"`
	Command string `json:"command"`
}

// Sidecar is a process that runs beside others in their containers.
type Sidecar struct {
	Name         string   `json:"name"`
	ProcessTypes []string `json:"process_types"`
	Command      string   `json:"command"`
	Memory       int      `json:"memory,omitempty"`
}

// Buildpack is what is known of a buildpack that took part.
type Buildpack struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// BuildpackMetadata says which buildpacks made a droplet.
type BuildpackMetadata struct {
	BuildpackKey      string      `json:"buildpack_key,omitempty"`
	DetectedBuildpack string      `json:"detected_buildpack"`
	Buildpacks        []Buildpack `json:"buildpacks,omitempty"`
}

// BuildpackResult is the result file of a buildpack staging.
type BuildpackResult struct {
	LifecycleType     string            `json:"lifecycle_type"`
	LifecycleMetadata BuildpackMetadata `json:"lifecycle_metadata"`
	ProcessTypes      ProcessTypes      `json:"process_types"`
	Processes         []Process         `json:"processes,omitempty"`
	Sidecars          []Sidecar         `json:"sidecars,omitempty"`
	// ExecutionMetadata is handed to the launcher as its third argument; a droplet needs none.
	ExecutionMetadata string `json:"execution_metadata"`
}

// DockerMetadata names the image that was looked at.
type DockerMetadata struct {
	DockerImage string `json:"docker_image"`
}

// DockerResult is the result file of a Docker staging.
type DockerResult struct {
	LifecycleType     string         `json:"lifecycle_type"`
	LifecycleMetadata DockerMetadata `json:"lifecycle_metadata"`
	ProcessTypes      ProcessTypes   `json:"process_types"`
	// ExecutionMetadata is the JSON text of an ExecutionMetadata.
	ExecutionMetadata string `json:"execution_metadata"`
}

// ExecutionMetadata is what an image says about running it. Cloud Controller reads user and ports, the launcher the rest.
type ExecutionMetadata struct {
	Cmd        []string `json:"cmd,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Workdir    string   `json:"workdir,omitempty"`
	Ports      []Port   `json:"ports,omitempty"`
	User       string   `json:"user,omitempty"`
}

// Port is an exposed port. Its JSON names are capitalised; Cloud Controller does not find them otherwise.
type Port struct {
	Port     uint16 `json:"Port"`
	Protocol string `json:"Protocol"`
}

// StagingInfoFile is the name, in a droplet's root, of the file that holds a StagingInfo.
const StagingInfoFile = "staging_info.yml"

// StagingInfo is what a droplet says about itself. It is written as JSON and, because old droplets hold YAML, read as
// YAML.
type StagingInfo struct {
	DetectedBuildpack string         `json:"detected_buildpack" yaml:"detected_buildpack"`
	StartCommand      string         `json:"start_command" yaml:"start_command"`
	Config            *StagingConfig `json:"config,omitempty" yaml:"config,omitempty"`
}

// StagingConfig is the part of a final buildpack's config.yml that the launcher obeys.
type StagingConfig struct {
	// EntrypointPrefix is a program that is given the start command as its one argument, instead of a shell.
	EntrypointPrefix string `json:"entrypoint_prefix,omitempty" yaml:"entrypoint_prefix,omitempty"`
}
