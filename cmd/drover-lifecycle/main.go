// Command drover-lifecycle is what runs inside containers: one static binary with the names that Cloud Foundry's
// lifecycles have there. The name it is called by decides what it does; people may give the name as first argument.
//
//	builder      stages an app with buildpacks, or, in the Docker lifecycle, asks a registry about an image
//	launcher     starts a droplet's process, or, in the Docker lifecycle, an image's
//	shell        a shell in the environment of a droplet's app
//	healthcheck  asks a process whether it is well
//	diego-sshd   refused: this release has no ssh
//
// Both lifecycles call their programs builder and launcher. Which one is meant is told by a file beside the binary
// (stager.MarkerFile) that the Docker lifecycle's bundle has; the names docker-builder and docker-launcher need none.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"drover/stager"
)

// call is one call of one program.
type call struct {
	ctx            context.Context //nolint:containedctx // A call's own lifetime is what this is.
	name           string
	args           []string
	env            []string
	stdout, stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	c := &call{ctx: ctx, name: filepath.Base(os.Args[0]), args: os.Args[1:], env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}
	code := c.run()
	stop()
	os.Exit(code)
}

// run does what the name says and returns the exit code.
func (c *call) run() int {
	program, ok := c.program()
	if !ok && len(c.args) > 0 {
		c.name, c.args = c.args[0], c.args[1:]
		program, ok = c.program()
	}
	if !ok {
		return c.fail(stager.Fail(stager.ExitError, "usage: drover-lifecycle builder|launcher|shell|healthcheck|docker-builder|docker-launcher …"))
	}
	return program()
}

func (c *call) program() (func() int, bool) {
	switch c.name {
	case "builder":
		if marked() {
			return c.dockerBuilder, true
		}
		return c.builder, true
	case "launcher":
		if marked() {
			return c.dockerLauncher, true
		}
		return c.launcher, true
	case "docker-builder":
		return c.dockerBuilder, true
	case "docker-launcher":
		return c.dockerLauncher, true
	case "shell":
		return c.shell, true
	case "healthcheck":
		return c.healthcheck, true
	case "diego-sshd":
		return c.sshd, true
	default:
		return nil, false
	}
}

// marked reports whether this binary came in the Docker lifecycle's bundle.
func marked() bool {
	self, err := os.Executable()
	if err != nil {
		return false
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(self), stager.MarkerFile))
	return err == nil && strings.TrimSpace(string(text)) == stager.LifecycleDocker
}

// fail tells the person and returns the exit code.
func (c *call) fail(err error) int {
	if err == nil {
		return int(stager.ExitOK)
	}
	_, _ = fmt.Fprintln(c.stderr, err)
	return int(stager.CodeOf(err))
}

// sshd refuses what is not there yet: an app that expects ssh must not seem to have it.
func (c *call) sshd() int {
	return c.fail(stager.Fail(stager.ExitError, "diego-sshd: ssh is not supported by this release; disable ssh for the app (cf disable-ssh APP) and restart it"))
}
