package main

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"drover/registry"
	"drover/registry/server"

	"github.com/spf13/cobra"
)

const registryHelp = `Registry serves container images to push and pull, from a directory.

Without a certificate it speaks plain HTTP, and whoever pulls from it must be told so (insecure_registries in the
driver's configuration), except on loopback. With --client-ca only those who show a certificate of that authority may
push or pull.`

func newRegistryCommand() *cobra.Command {
	var config registry.Config
	cmd := &cobra.Command{
		Use:   "registry --dir DIR",
		Short: "serve container images from a directory",
		Long:  registryHelp,
		Example: "  drover registry --dir /var/lib/drover/registry\n" +
			"  drover registry --dir /srv/images --listen :5000 --tls-cert reg.crt --tls-key reg.key --client-ca cells.crt",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(config.Dir)
			if err != nil {
				return fmt.Errorf("registry directory: %w", err)
			}
			config.Dir = dir
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			opened, err := server.Open(cmd.Context(), config, log)
			if err != nil {
				return err
			}
			log.Info("serving images", "address", opened.Addr(), "dir", config.Dir, "tls", config.TLS.Enabled())
			return opened.Serve(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Listen, "listen", "127.0.0.1:5000", "address to listen on; port 0 takes a free one")
	flags.StringVar(&config.Dir, "dir", "", "directory of all content, made when missing")
	flags.StringVar(&config.TLS.Cert, "tls-cert", "", "PEM certificate to serve with")
	flags.StringVar(&config.TLS.Key, "tls-key", "", "PEM key of the certificate")
	flags.StringVar(&config.TLS.ClientCA, "client-ca", "", "PEM authorities whose clients may push and pull")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}
