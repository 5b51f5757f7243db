package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"drover/cmd/drover/apps"
	"drover/cmd/drover/controller"
	"drover/cmd/drover/demo"
	"drover/cmd/drover/dev"
	"drover/stager/bundle"

	"github.com/spf13/cobra"
)

const devHelp = `Dev brings up a whole platform on this machine and stays in the foreground until Ctrl-C: Consul, Nomad with Drover's
driver, an image registry, the bridge, and the smallest Cloud Controller there is. Everything listens on loopback or on
a network device of its own, and certificates come from a throw-away authority.

The first time it makes a root file system of Debian packages, which takes a minute or two; later starts take seconds.
Ctrl-C stops everything and leaves no process, mount or network device behind. Apps and images stay in the state
directory and run again at the next start.

It needs root.`

func newDevCommand() *cobra.Command {
	var config dev.Config
	var sample bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "a whole platform on this machine, until Ctrl-C",
		Long:  devHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Progress = progressTo(cmd.ErrOrStderr())
			return runDev(cmd, config, sample)
		},
	}
	devFlags(cmd, &config)
	cmd.Flags().BoolVar(&sample, "sample", false, "push a sample app")
	return cmd
}

// devFlags are the flags of commands that bring up a platform.
func devFlags(cmd *cobra.Command, config *dev.Config) {
	flags := cmd.Flags()
	flags.StringVar(&config.Dir, "dir", "", "state directory (default $DROVER_DEV or ~/.drover/dev)")
	flags.StringVar(&config.Bin, "bin", "", "directory of Drover's other programs (default: where this one is)")
	flags.StringVar(&config.StackImage, "stack-image", "", "image to use as stack "+dev.StackName+" instead of a Debian made here")
	flags.StringVar(&config.StackRootFS, "stack-rootfs", "", "directory or tar archive to use as stack")
	flags.StringVar(&config.DebianMirror, "debian-mirror", "", "URL of the Debian mirror (default: debootstrap's choice)")
	flags.StringVar(&config.LogLevel, "log-level", "INFO", "DEBUG, INFO, WARN or ERROR")
}

func progressTo(out io.Writer) func(string) {
	return func(message string) { _, _ = fmt.Fprintf(out, "-- %s\n", message) }
}

func runDev(cmd *cobra.Command, config dev.Config, sample bool) error {
	ctx := cmd.Context()
	platform, err := dev.Start(ctx, config)
	if err != nil {
		return err
	}
	err = liveDev(ctx, cmd, platform, sample)
	progressTo(cmd.ErrOrStderr())("stopping everything (again Ctrl-C would leave things behind)")
	return errors.Join(err, platform.Stop(context.WithoutCancel(ctx)))
}

// liveDev is the time between a platform's start and its end.
func liveDev(ctx context.Context, cmd *cobra.Command, platform *dev.Platform, sample bool) error {
	out := cmd.OutOrStdout()
	if sample {
		if err := pushSample(ctx, cmd, platform.Info); err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "drover: the sample app: %v\n", err)
		}
	}
	if ctx.Err() == nil {
		_, _ = fmt.Fprint(out, whatNext(platform.Info, sample))
	}
	return platform.Wait(ctx)
}

func pushSample(ctx context.Context, cmd *cobra.Command, info dev.Info) error {
	source := filepath.Join(info.Dir, "sample-app")
	if err := os.RemoveAll(source); err != nil {
		return fmt.Errorf("write the sample app: %w", err)
	}
	if err := os.CopyFS(source, bundle.SampleNodeApp()); err != nil {
		return fmt.Errorf("write the sample app: %w", err)
	}
	session, err := apps.Open(info, cmd.OutOrStdout(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	app, err := session.Push(ctx, controller.Push{Name: "hello", Dir: source, Instances: 2})
	if err != nil {
		return err
	}
	return showURLs(ctx, cmd.OutOrStdout(), session, app)
}

// whatNext tells a person what to try.
func whatNext(info dev.Info, sample bool) string {
	app := "my-app -p DIRECTORY"
	if sample {
		app = "hello -p " + filepath.Join(info.Dir, "sample-app")
	}
	prefix := "drover"
	if standard, err := dev.DefaultDir(); err != nil || standard != info.Dir {
		prefix = "DROVER_DEV=" + info.Dir + " drover"
	}
	return fmt.Sprintf(`
Drover runs. In another terminal, as root, try:

  %[1]s push %[2]s
  %[1]s push web -o %[3]s --health-check-type http --endpoint /healthz
  %[1]s ps
  %[1]s logs hello --follow
  %[1]s task hello 'node --version'
  %[1]s scale hello 3
  %[1]s delete hello

Nomad:    %[4]s
Consul:   %[5]s
Registry: http://%[6]s
Logs:     %[7]s

Ctrl-C stops everything.
`, prefix, app, info.Web, info.Nomad, info.Consul, info.Registry, info.Logs)
}

const demoHelp = `Demo brings up a platform of its own, pushes an app and a Docker image, calls them, scales, kills a container, shows
logs, runs a task, deletes everything, takes the platform down and looks for what was left behind. It ends with
"demo: ok", or says what went wrong and keeps the logs. It needs root, and no person.`

func newDemoCommand() *cobra.Command {
	var config dev.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "show that everything works, without a person",
		Long:  demoHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Progress = progressTo(cmd.ErrOrStderr())
			if config.Dir == "" {
				home, err := dev.DefaultDir()
				if err != nil {
					return err
				}
				if err := os.MkdirAll(filepath.Dir(home), 0o700); err != nil {
					return fmt.Errorf("make the state directory: %w", err)
				}
				if config.Dir, err = os.MkdirTemp(filepath.Dir(home), "demo-"); err != nil {
					return fmt.Errorf("make the state directory: %w", err)
				}
			}
			return demo.Run(cmd.Context(), config, cmd.OutOrStdout())
		},
	}
	devFlags(cmd, &config)
	return cmd
}
