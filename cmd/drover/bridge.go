package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"drover/cmd/drover/serve"
)

const bridgeHelp = `Bridge serves Diego's BBS API from Nomad, so that a Cloud Controller can run its work there.

It opens three doors: the BBS API and cc-uploader, both with mutual TLS, and the file server for lifecycle bundles. It
also tells Cloud Controller when a Task has ended. It keeps nothing itself: all that it must remember is in Nomad, and
any number of bridges may serve one cluster.

SIGINT and SIGTERM let what is under way finish, which can take as long as an upload; a second signal does not wait.

A configuration file with every setting:

`

func newBridgeCommand() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "bridge",
		Short: "serve Diego's BBS API from Nomad",
		Long:  bridgeHelp + indent(serve.Example),
		Example: "  drover bridge --config /etc/drover/bridge.hcl --check   # says everything that is wrong\n" +
			"  drover bridge --config /etc/drover/bridge.hcl",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := serve.Load(file)
			if err != nil {
				return fmt.Errorf("the configuration cannot be used:\n%w", indented(err))
			}
			if check {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
				return err
			}
			return runBridge(cmd, config)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/drover/bridge.hcl", "configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration file, say everything that is wrong, and end")
	return cmd
}

func runBridge(cmd *cobra.Command, config serve.Config) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // The second signal finds nobody who would hold it up.
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: config.Level()}))
	return serve.Run(ctx, config, log, func(a serve.Addresses) {
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "bbs       https://%s\nfiles     http://%s/v1/static/\nuploader  https://%s\n",
			a.BBS, a.Files, a.Uploader) // Whoever closed our output can still use the doors.
	})
}

func indent(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = "    " + line
		}
	}
	return strings.Join(lines, "\n")
}

// indented shows one of many mistakes on each line.
func indented(err error) error { return errors.New(indent(err.Error())) }
