package dev

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"drover/bridge/nomad"
	"drover/bridge/translate"
	"drover/cmd/drover/controller"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"
	"drover/cmd/drover/serve"
	"drover/e2e/agent"
	"drover/registry"
	images "drover/registry/server"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// registryPort is the customary port of registries; a free one is taken when it is not free.
const registryPort = "5000"

// startRegistry listens on the bridge device's address, which containers reach as well as the machine itself, so that
// an image has the same name everywhere.
func (p *Platform) startRegistry(ctx context.Context) (func(context.Context) error, error) {
	config := registry.Config{Listen: net.JoinHostPort(p.network.Gateway.String(), registryPort), Dir: p.config.below("registry")}
	opened, err := images.Open(ctx, config, p.log)
	if err != nil {
		config.Listen = net.JoinHostPort(p.network.Gateway.String(), "0")
		if opened, err = images.Open(ctx, config, p.log); err != nil {
			return nil, err
		}
	}
	p.Info.Registry = opened.Addr()
	down := p.serve(ctx, "registry", opened.Serve)
	p.Info.Web = p.Info.Registry + "/drover/web:1"
	reference, err := name.ParseReference(p.Info.Web, name.Insecure)
	if err != nil {
		return down, err
	}
	if err := remote.Write(reference, p.webImage, remote.WithContext(ctx)); err != nil {
		return down, fmt.Errorf("push the image to try: %w", err)
	}
	return down, nil
}

// pluginName is the driver's program.
const pluginName = "nomad-driver-drover"

func (p *Platform) startAgents(ctx context.Context) (func(context.Context) error, error) {
	plugins := p.config.below("cell", "plugins")
	if err := copyProgram(filepath.Join(p.config.Bin, pluginName), filepath.Join(plugins, pluginName)); err != nil {
		return nil, err
	}
	cluster, err := agent.Start(ctx, agent.Config{
		Dir:          p.config.below("agents"),
		PluginDir:    plugins,
		Plugins:      map[string]string{pluginName: p.pluginConfig()},
		CNIPath:      p.cniDir,
		CNIConfigDir: p.config.below("cni"),
		LogLevel:     p.config.LogLevel,
		Progress:     p.config.Progress,
	})
	if err != nil {
		return nil, err
	}
	p.Cluster = cluster
	p.Info.Nomad, p.Info.Consul = cluster.NomadAddr, cluster.ConsulAddr
	endWatch := p.serve(ctx, "a part of the platform", cluster.Wait)
	return func(ctx context.Context) error {
		_ = endWatch(ctx) // if an agent ended, that is why we are here
		return errors.Join(cluster.Stop(ctx), p.config.sweep(ctx))
	}, nil
}

// pluginConfig is the driver's block in Nomad's configuration.
func (p *Platform) pluginConfig() string {
	root := fmt.Sprintf("image = %q", p.config.StackImage)
	if p.rootfs != "" {
		root = fmt.Sprintf("rootfs = %q", p.rootfs)
	}
	return fmt.Sprintf(`    state_dir            = %q
    image_dir            = %q
    shim                 = %q
    trusted_certificates = %q
    insecure_registries  = [%q]
    lifecycle            = %q
    stack %q {
      %s
    }
    tls {
      ca_file   = %q
      cert_file = %q
      key_file  = %q
    }`,
		p.Info.Tasks, p.config.below("images"), filepath.Join(p.config.Bin, "drover-shim"),
		p.config.below("cell", "trusted"), p.Info.Registry,
		filepath.Join(p.static, "buildpack_app_lifecycle", "buildpack_app_lifecycle.tgz"),
		StackName, root, p.tls.cell.CA, p.tls.cell.Cert, p.tls.cell.Key)
}

// copyProgram makes a program of its own, so that a rebuild does not change the one that runs. Nomad takes every
// program in its plugin directory for a plugin.
func copyProgram(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

func (p *Platform) startBridge(ctx context.Context) (func(context.Context) error, error) {
	runtime, err := nomad.New(nomad.Config{
		Client:  p.Cluster.Nomad,
		Options: translate.Options{Network: "cni/" + networkName, Services: translate.ServicesConsul},
		Log:     p.log,
	})
	if err != nil {
		return nil, err
	}
	config := serve.Default()
	own := serve.TLS(p.tls.bridge)
	config.StaticDir, config.TLS = p.static, &own
	config.Listen = &serve.Listen{BBS: "127.0.0.1:0", Files: "127.0.0.1:0", Uploader: "127.0.0.1:0"}
	bridge, err := serve.New(config, runtime, p.log)
	if err != nil {
		return nil, err
	}
	endRuntime := p.serve(ctx, "bridge's watch of Nomad", runtime.Run)
	ready := make(chan serve.Addresses, 1)
	endBridge := p.serve(ctx, "bridge", func(ctx context.Context) error {
		return bridge.Run(ctx, func(addresses serve.Addresses) { ready <- addresses })
	})
	down := func(ctx context.Context) error { return errors.Join(endBridge(ctx), endRuntime(ctx)) }
	select {
	case addresses := <-ready:
		p.Info.Controller = p.controllerConfig(addresses)
		return down, nil
	case err := <-p.failed:
		return down, err
	case <-ctx.Done():
		return down, ctx.Err()
	}
}

// controllerConfig is what an operator would write into Cloud Controller's configuration.
func (p *Platform) controllerConfig(bridge serve.Addresses) controller.Config {
	static := "http://" + bridge.Files.String() + "/v1/static/"
	config := controller.Config{
		BBS: "https://" + bridge.BBS.String(),
		Platform: recipe.Platform{
			CCUploader: "https://" + bridge.Uploader.String(),
			Lifecycles: map[string]string{
				"buildpack/" + StackName: static + "buildpack_app_lifecycle/buildpack_app_lifecycle.tgz",
				"docker":                 static + "docker_app_lifecycle/docker_app_lifecycle.tgz",
			},
			Stack:              StackName,
			InsecureRegistries: []string{p.Info.Registry},
			SystemDomain:       "drover.internal",
			Staging:            recipe.StagingLimits{Timeout: 15 * time.Minute, MemoryMB: 1024, DiskMB: 2048, NoFile: 16384},
			PIDs:               1024,
			EgressRules:        egressRules(p.network.Subnet),
		},
	}
	for _, pack := range p.packs {
		pack.URL = static + pack.URL
		config.Buildpacks = append(config.Buildpacks, pack)
	}
	return config
}

// egressRules are Cloud Foundry's customary security groups public_networks and dns, and one for our own network.
func egressRules(own netip.Prefix) []*models.SecurityGroupRule {
	rule := func(group, protocol string, ports []uint32, destinations ...string) *models.SecurityGroupRule {
		return &models.SecurityGroupRule{
			Protocol: protocol, Ports: ports, Destinations: destinations, Annotations: []string{"security_group_id:" + group},
		}
	}
	return []*models.SecurityGroupRule{
		rule("public_networks", "all", nil, "0.0.0.0-9.255.255.255", "11.0.0.0-169.253.255.255", "169.255.0.0-172.15.255.255",
			"172.32.0.0-192.167.255.255", "192.169.0.0-255.255.255.255"),
		rule("dns", "tcp", []uint32{53}, "0.0.0.0/0"),
		rule("dns", "udp", []uint32{53}, "0.0.0.0/0"),
		rule("drover_dev", "all", nil, own.String()),
	}
}

func (p *Platform) startController(ctx context.Context) (func(context.Context) error, error) {
	keeper, err := server.New(p.config.below("controller"), p.log.With("part", "controller"))
	if err != nil {
		return nil, err
	}
	identity, err := p.tls.controller.Load()
	if err != nil {
		return nil, errors.Join(err, keeper.Close())
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, keeper.Close())
	}
	url := "https://" + listener.Addr().String()
	p.Info.Controller.Server, p.Info.Controller.Platform.CC = url, url
	web := &http.Server{Handler: keeper.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	endWeb := p.serve(ctx, "controller", func(ctx context.Context) error {
		end := context.AfterFunc(ctx, func() { _ = web.Close() }) // clients repeat what was cut
		defer end()
		err := web.Serve(tls.NewListener(listener, identity.Server()))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	p.Controller = controller.New(p.Info.Controller, identity)
	endSync := p.serve(ctx, "controller's sync", func(ctx context.Context) error {
		p.Controller.KeepInSync(ctx, p.log.With("part", "sync"))
		return nil
	})
	down := func(ctx context.Context) error {
		removed := os.RemoveAll(p.config.below(infoFile))
		return errors.Join(removed, endSync(ctx), endWeb(ctx), keeper.Close())
	}
	if err := p.Info.write(); err != nil {
		return down, err
	}
	p.config.Progress("ready; logs are in " + strings.TrimSuffix(p.Info.Logs, "/"))
	return down, nil
}
