package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"drover/cmd/drover/apps"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"
	"drover/cmd/drover/dev"

	"github.com/spf13/cobra"
)

// platformFlag is the flag that names a platform.
type platformFlag struct{ dir string }

func (f *platformFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "state directory of drover dev (default $DROVER_DEV or ~/.drover/dev)")
}

// open connects to the platform.
func (f *platformFlag) open(cmd *cobra.Command) (*apps.Session, error) {
	dir := f.dir
	if dir == "" {
		var err error
		if dir, err = dev.DefaultDir(); err != nil {
			return nil, err
		}
	}
	info, err := dev.Read(dir)
	if err != nil {
		return nil, err
	}
	return apps.Open(info, cmd.OutOrStdout(), cmd.ErrOrStderr())
}

func newPSCommand() *cobra.Command {
	where := &platformFlag{}
	cmd := &cobra.Command{
		Use:   "ps [NAME]",
		Short: "show apps and their instances",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			session, err := where.open(cmd)
			if err != nil {
				return err
			}
			list, err := session.Controller.Apps(cmd.Context())
			if len(args) > 0 {
				list = make([]recipe.App, 1)
				list[0], err = session.Controller.App(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			return printApps(cmd.Context(), cmd.OutOrStdout(), session, list)
		},
	}
	where.add(cmd)
	return cmd
}

func printApps(ctx context.Context, out io.Writer, session *apps.Session, list []recipe.App) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "APP\tINSTANCE\tSTATE\tSINCE\tMEMORY\tADDRESS\tDETAILS")
	for _, app := range list {
		instances, err := session.Instances(ctx, app)
		if err != nil {
			return err
		}
		if len(instances) == 0 {
			_, _ = fmt.Fprintf(table, "%s\t-\tSTOPPED\t-\t%dM\t\t\n", app.Name, app.MemoryMB)
		}
		for _, instance := range instances {
			_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%dM\t%s\t%s\n", app.Name, instance.Index, instance.State,
				instance.Since.Format(time.DateTime), app.MemoryMB, instance.Address, instance.Details)
		}
	}
	return table.Flush()
}

func newLogsCommand() *cobra.Command {
	where := &platformFlag{}
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "show what an app's instances wrote",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			session, err := where.open(cmd)
			if err != nil {
				return err
			}
			return session.Logs(cmd.Context(), args[0], follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	where.add(cmd)
	return cmd
}

func newTaskCommand() *cobra.Command {
	where := &platformFlag{}
	cmd := &cobra.Command{
		Use:     "task NAME COMMAND",
		Short:   "run a one-off command with an app's droplet or image",
		Long:    "Task runs a command in a container of its own, made of an app's droplet or image, and shows its output and how it\nended. The command fails when the task fails.",
		Example: "  drover task hello 'node --version'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			session, err := where.open(cmd)
			if err != nil {
				return err
			}
			task, err := session.Task(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if task.State == server.StateFailed {
				return fmt.Errorf("task %s failed: %s", task.Name, task.Completion.FailureReason)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "task %s %s\n", task.Name, task.State)
			return err
		},
	}
	where.add(cmd)
	return cmd
}

func newScaleCommand() *cobra.Command {
	where := &platformFlag{}
	cmd := &cobra.Command{
		Use:   "scale NAME N",
		Short: "change how many instances an app has, restarting none",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			instances, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil || instances < 0 {
				return fmt.Errorf("%q is not a number of instances", args[1])
			}
			session, err := where.open(cmd)
			if err != nil {
				return err
			}
			app, err := session.Scale(cmd.Context(), args[0], int32(instances))
			if err != nil {
				return err
			}
			return showURLs(cmd.Context(), cmd.OutOrStdout(), session, app)
		},
	}
	where.add(cmd)
	return cmd
}

func newDeleteCommand() *cobra.Command {
	where := &platformFlag{}
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "stop an app and forget it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			session, err := where.open(cmd)
			if err != nil {
				return err
			}
			err = session.Controller.Delete(cmd.Context(), args[0])
			if errors.Is(err, server.ErrNotFound) {
				return fmt.Errorf("%w; `drover ps` lists what there is", err)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is deleted\n", args[0])
			return err
		},
	}
	where.add(cmd)
	return cmd
}
