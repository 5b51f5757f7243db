package serve

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"drover/bridge/nomad"
	"drover/bridge/translate"
)

// tokenVariable is the environment's variable that Nomad's own tools read.
const tokenVariable = "NOMAD_TOKEN"

// Run serves a checked Config from the Nomad that it names, until ctx ends.
func Run(ctx context.Context, config Config, log *slog.Logger, ready func(Addresses)) error {
	client, err := config.Nomad.client()
	if err != nil {
		return err
	}
	killTimeout, err := time.ParseDuration(config.Nomad.KillTimeout)
	if err != nil {
		return fmt.Errorf("nomad.kill_timeout: %w", err)
	}
	runtime, err := nomad.New(nomad.Config{
		Client: client,
		Options: translate.Options{
			Region:      config.Nomad.Region,
			Namespace:   config.Nomad.Namespace,
			NodePool:    config.Nomad.NodePool,
			Datacenters: config.Nomad.Datacenters,
			Network:     config.Nomad.NetworkMode,
			Services:    config.Nomad.Services,
			KillTimeout: killTimeout,
		},
		Log: log,
	})
	if err != nil {
		return err
	}
	bridge, err := New(config, runtime, log)
	if err != nil {
		return err
	}
	// Calls that are being finished still need what the runtime knows, so it ends last.
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return runtime.Run(watching) })
	group.Go(func() error {
		defer stop()
		return bridge.Run(ctx, ready)
	})
	return group.Wait()
}

// client reads nothing but the Config and the token: a variable of the environment that happens to be set for an
// operator's own tools must not move the platform to another cluster.
func (n *Nomad) client() (*api.Client, error) {
	token := os.Getenv(tokenVariable)
	if n.TokenFile != "" {
		data, err := os.ReadFile(n.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("nomad.token_file: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	client, err := api.NewClient(&api.Config{
		Address:   n.Address,
		Region:    n.Region,
		Namespace: n.Namespace,
		SecretID:  token,
		TLSConfig: &api.TLSConfig{CACert: n.CA, ClientCert: n.Cert, ClientKey: n.Key, TLSServerName: n.ServerName},
	})
	if err != nil {
		return nil, fmt.Errorf("nomad.address: %w", err)
	}
	return client, nil
}
