package main

import (
	"drover/driver"

	"github.com/spf13/cobra"
)

const rootHelp = `Drover runs Cloud Foundry's work on HashiCorp Nomad.

To try it on this machine, as root:

  drover dev                      a whole platform, until Ctrl-C
  drover push hello -p ./my-app   in another terminal

To run it for others: bridge, which serves a Cloud Controller, and registry, which serves images; the driver for Nomad
is a program of its own, nomad-driver-drover.`

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "drover",
		Short:         "Cloud Foundry's work on HashiCorp Nomad",
		Long:          rootHelp,
		Version:       driver.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: "try", Title: "To try it:"},
		&cobra.Group{ID: "apps", Title: "Apps on drover dev:"},
		&cobra.Group{ID: "serve", Title: "Services:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"try":   {newDevCommand(), newDemoCommand()},
		"apps":  {newPushCommand(), newPSCommand(), newLogsCommand(), newTaskCommand(), newScaleCommand(), newDeleteCommand()},
		"serve": {newBridgeCommand(), newRegistryCommand()},
	} {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	return root
}
