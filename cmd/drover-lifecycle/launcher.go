package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"drover/stager"
	"drover/stager/launch"
)

// launcher becomes a droplet's process. Its third argument must be there and is not looked at.
func (c *call) launcher() int {
	if len(c.args) < 3 {
		return c.fail(stager.Fail(stager.ExitError, "%s: usage: launcher <app directory> <start command> <metadata>", c.name))
	}
	if err := c.credhubFlags(c.args[3:]); err != nil {
		return c.fail(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return c.fail(fmt.Errorf("finding the working directory: %w", err))
	}
	cmd, err := launch.App(cwd, c.args[0], c.args[1], c.env)
	if err != nil {
		return c.fail(err)
	}
	return c.become(cmd)
}

// dockerLauncher becomes an image's process. Its first argument is not looked at.
func (c *call) dockerLauncher() int {
	if len(c.args) < 3 {
		return c.fail(stager.Fail(stager.ExitError, "%s: usage: launcher <ignored> <start command> <metadata>", c.name))
	}
	if err := c.credhubFlags(c.args[3:]); err != nil {
		return c.fail(err)
	}
	cmd, err := launch.Image(c.args[1], c.args[2], c.env)
	if err != nil {
		return c.fail(err)
	}
	return c.become(cmd)
}

// credhubFlags takes what may follow: without effect, as CredHub references are refused (package vcap).
func (c *call) credhubFlags(args []string) error {
	set := c.newFlags()
	set.Int("credhubConnectAttempts", 3, "taken, without effect")
	set.Duration("credhubRetryDelay", time.Second, "taken, without effect")
	return c.parse(set, args)
}

// shell becomes a shell: shell [<app directory> [<command>…]].
func (c *call) shell() int {
	cwd, err := os.Getwd()
	if err != nil {
		return c.fail(fmt.Errorf("finding the working directory: %w", err))
	}
	dir, command := defaultApp(cwd), ""
	if len(c.args) > 0 {
		dir = c.args[0]
		command = strings.Join(c.args[1:], " ")
	}
	cmd, err := launch.Shell(cwd, dir, command, c.env)
	if err != nil {
		return c.fail(err)
	}
	return c.become(cmd)
}

// defaultApp is the app below the working directory, or where stacks have it.
func defaultApp(cwd string) string {
	dir := filepath.Join(cwd, "app")
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return dir
	}
	return "/home/vcap/app"
}

// become replaces this process; it returns only when that fails.
func (c *call) become(cmd *launch.Command) int {
	if cmd.Dir != "" {
		if err := os.Chdir(cmd.Dir); err != nil {
			return c.fail(stager.Fail(stager.ExitExec, "entering the working directory: %w", err))
		}
	}
	err := syscall.Exec(cmd.Path, cmd.Args, cmd.Env)
	return c.fail(stager.Fail(stager.ExitExec, "executing %s: %w", cmd.Path, err))
}
