// Package launch is launcher and shell: it works out how a process of a droplet or of an image is started. Each function
// returns a Command and starts nothing; the program replaces itself by it.
//
// A droplet's process runs in bash, after the scripts that buildpacks and app left for its environment; an image's is
// executed as the image says, and needs a shell only for a start command of the app's own.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"drover/stager"
	"drover/stager/vcap"
)

// maxInfo bounds the droplet's own description.
const maxInfo = 1 << 20

// defaultPath is where programs are found when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command is what the launcher becomes.
type Command struct {
	Path string
	Args []string
	Env  []string
	// Dir is the working directory; empty keeps the launcher's.
	Dir string
}

// appScript is run by bash with: the app's directory, the kind of start, and the command. Scripts of buildpacks and app
// are sourced, so that what they export is the app's environment. They may change everything, the positional
// parameters included, so those are taken first.
const appScript = `
drover_dir=$1 drover_kind=$2 drover_command=$3 drover_prefix=$4
shift 4
cd "$drover_dir" || exit 1
echo "Invoking pre-start scripts."
for drover_file in ../profile.d/* .profile.d/*; do
  if [ -f "$drover_file" ]; then source "$drover_file"; fi
done
if [ -f .profile ]; then source .profile; fi
unset drover_file
echo "Invoking start command."
if [ "$drover_kind" = prefix ]; then exec "$drover_prefix" "$drover_command"; fi
exec bash -c "$drover_command"
`

// shellScript gives a person the environment of the app, without the app's own .profile and without words.
const shellScript = `
drover_dir=$1 drover_command=$2
shift 2
cd "$drover_dir" || exit 1
for drover_file in ../profile.d/* .profile.d/*; do
  if [ -f "$drover_file" ]; then source "$drover_file"; fi
done
unset drover_file
if [ -n "$drover_command" ]; then exec bash -c "$drover_command"; fi
exec bash
`

// App returns the command for a droplet's process. dir is the app's directory; command may be empty, then the droplet's
// own is read from staging_info.yml in cwd. Errors carry exit codes.
func App(cwd, dir, command string, env []string) (*Command, error) {
	info, err := readInfo(cwd)
	if err != nil {
		return nil, stager.Fail(stager.ExitError, "Invalid staging info - %w", err)
	}
	if command == "" {
		command = info.StartCommand
	}
	if command == "" {
		return nil, stager.Fail(stager.ExitError, "launcher: no start command specified or detected in droplet")
	}
	dir = absolute(cwd, dir)
	env, err = appEnv(dir, env)
	if err != nil {
		return nil, err
	}
	kind, prefix := "shell", ""
	if info.Config != nil && info.Config.EntrypointPrefix != "" {
		kind, prefix = "prefix", info.Config.EntrypointPrefix
	}
	return bash(env, appScript, dir, kind, command, prefix)
}

// Shell returns an interactive shell in the app's environment, or command in it.
func Shell(cwd, dir, command string, env []string) (*Command, error) {
	dir = absolute(cwd, dir)
	env, err := appEnv(dir, env)
	if err != nil {
		return nil, err
	}
	return bash(env, shellScript, dir, command)
}

func bash(env []string, script string, args ...string) (*Command, error) {
	path, err := lookPath("bash", vcap.Get(env, "PATH"), "")
	if err != nil {
		path = "/bin/bash"
	}
	return &Command{Path: path, Args: append([]string{"bash", "-c", script, "launcher"}, args...), Env: env}, nil
}

func absolute(cwd, dir string) string {
	if filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	return filepath.Join(cwd, dir)
}

// appEnv is what a droplet's process finds: its directories, its services' database, and its place among its fellows.
func appEnv(dir string, env []string) ([]string, error) {
	env, err := prepare(env)
	if err != nil {
		return nil, err
	}
	parent := filepath.Dir(dir)
	env = vcap.Set(env, "HOME", dir)
	env = vcap.Set(env, "TMPDIR", filepath.Join(parent, "tmp"))
	return vcap.Set(env, "DEPS_DIR", filepath.Join(parent, "deps")), nil
}

// prepare is common to droplets and images. For the launcher every failure of the environment is exit code 3: its 4
// means that the command could not be executed.
func prepare(env []string) ([]string, error) {
	out, err := vcap.Prepare(env)
	if err != nil {
		return nil, &stager.Failure{Code: stager.ExitEnvironment, Err: err}
	}
	return vcap.Application(out), nil
}

// readInfo reads staging_info.yml; a droplet without one says nothing.
func readInfo(cwd string) (stager.StagingInfo, error) {
	var info stager.StagingInfo
	f, err := os.Open(filepath.Join(cwd, stager.StagingInfoFile))
	if errors.Is(err, os.ErrNotExist) {
		return info, nil
	}
	if err != nil {
		return info, fmt.Errorf("opening it: %w", err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	text, err := io.ReadAll(io.LimitReader(f, maxInfo))
	if err != nil {
		return info, fmt.Errorf("reading it: %w", err)
	}
	if err := yaml.Unmarshal(text, &info); err != nil {
		return info, fmt.Errorf("parsing it: %w", err)
	}
	return info, nil
}

// Image returns the command for an image's process: the app's own command by /bin/sh, else what the image says. metadata
// is a JSON stager.ExecutionMetadata. Errors carry exit codes.
func Image(command, metadata string, env []string) (*Command, error) {
	var meta stager.ExecutionMetadata
	if err := json.Unmarshal([]byte(metadata), &meta); err != nil {
		return nil, stager.Fail(stager.ExitError, "Invalid metadata - %w", err)
	}
	env, err := prepare(env)
	if err != nil {
		return nil, err
	}
	dir := meta.Workdir
	if dir == "" {
		dir = "/"
	}
	if command != "" {
		return &Command{Path: "/bin/sh", Args: []string{"/bin/sh", "-c", command}, Env: env, Dir: dir}, nil
	}
	argv := append(append([]string{}, meta.Entrypoint...), meta.Cmd...)
	if len(argv) == 0 {
		return nil, stager.Fail(stager.ExitError, "No start command found or specified")
	}
	path, err := lookPath(argv[0], vcap.Get(env, "PATH"), dir)
	if err != nil {
		return nil, stager.Fail(stager.ExitExec, "finding the image's command: %w", err)
	}
	return &Command{Path: path, Args: argv, Env: env, Dir: dir}, nil
}

// lookPath finds a program by the PATH of the process that will be, not by the launcher's own. Names with a slash are
// relative to dir.
func lookPath(program, path, dir string) (string, error) {
	if strings.Contains(program, "/") {
		if filepath.IsAbs(program) {
			return program, nil
		}
		return filepath.Join(dir, program), nil
	}
	if path == "" {
		path = defaultPath
	}
	for _, d := range filepath.SplitList(path) {
		candidate := filepath.Join(absolute(dir, d), program)
		if info, err := os.Stat(candidate); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%q is not in PATH", program)
}
