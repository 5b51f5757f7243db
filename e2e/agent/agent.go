// Package agent starts real Consul and Nomad agents, one server and client of each, on free ports of the loopback
// interface, for end-to-end tests and for drover dev.
//
//	cluster, err := agent.Start(ctx, agent.Config{Dir: dir, PluginDir: bin, Plugins: map[string]string{"nomad-driver-drover": `state_dir = "…"`}})
//	defer cluster.Stop(ctx)
//
// Start returns when both answer and the Nomad node is ready. Stop purges every job, waits for its allocations to end,
// collects them, and ends both processes; nothing stays mounted below Config.Dir. The agents' logs are nomad.log and
// consul.log in Config.Dir. Agents run with a clean environment: some variables of a developer's shell stop them from
// starting (AWS_CA_BUNDLE does).
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"
)

// Config says what to start. Only Dir is required.
type Config struct {
	// Dir holds configuration, data and logs. It is created; what is in it stays after Stop.
	Dir string
	// Nomad and Consul are paths of the programs; empty finds them (see Find).
	Nomad, Consul string
	// PluginDir is the agent's plugin_dir; empty for none.
	PluginDir string
	// Plugins maps a plugin's file name to the body of its config block, in HCL.
	Plugins map[string]string
	// NetworkInterface is where Nomad takes the node's address from; default lo.
	NetworkInterface string
	// CNIPath and CNIConfigDir are Nomad's cni_path and cni_config_dir; defaults /usr/lib/cni and <Dir>/cni.
	CNIPath, CNIConfigDir string
	// LogLevel of Nomad; default INFO.
	LogLevel string
	// NoConsul leaves Consul out.
	NoConsul bool
	// Extra is appended to Nomad's configuration.
	Extra string
	// Progress, when set, is told what is being waited for.
	Progress func(message string)
}

// Cluster is a running pair of agents.
type Cluster struct {
	// NomadAddr and ConsulAddr are URLs; ConsulAddr is empty without Consul.
	NomadAddr, ConsulAddr string
	// Nomad and Consul are clients of them.
	Nomad  *nomad.Client
	Consul *consul.Client

	config Config
	nomad  *process
	consul *process
}

// startTimeout bounds the wait for each agent.
const startTimeout = 90 * time.Second

// Start starts the agents and waits until Nomad's node is ready.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config}
	if !config.NoConsul {
		if err := c.startConsul(ctx); err != nil {
			return nil, errors.Join(err, c.end())
		}
	}
	if err := c.startNomad(ctx); err != nil {
		return nil, errors.Join(err, c.end())
	}
	return c, nil
}

func (config Config) withDefaults() (Config, error) {
	if config.Dir == "" {
		return config, errors.New("agent: Dir is required")
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return config, fmt.Errorf("agent: %w", err)
	}
	config.Dir = dir
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&config.NetworkInterface, "lo")
	fill(&config.CNIPath, "/usr/lib/cni")
	fill(&config.CNIConfigDir, filepath.Join(dir, "cni"))
	fill(&config.LogLevel, "INFO")
	if config.Progress == nil {
		config.Progress = func(string) {}
	}
	if config.Nomad == "" {
		if config.Nomad, err = Find("nomad"); err != nil {
			return config, err
		}
	}
	if config.Consul == "" && !config.NoConsul {
		if config.Consul, err = Find("consul"); err != nil {
			return config, err
		}
	}
	for _, d := range []string{dir, config.CNIConfigDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return config, fmt.Errorf("agent: %w", err)
		}
	}
	return config, nil
}

func (c *Cluster) startConsul(ctx context.Context) error {
	c.config.Progress("starting Consul")
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	path := filepath.Join(c.config.Dir, "consul.json")
	if err := os.WriteFile(path, []byte(consulConfig(c.config, ports)), 0o600); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if c.consul, err = start(c.config.Consul, c.config.Dir, "consul.log", "agent", "-config-file", path); err != nil {
		return err
	}
	c.ConsulAddr = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if c.Consul, err = consul.NewClient(&consul.Config{Address: c.ConsulAddr}); err != nil {
		return fmt.Errorf("agent: consul client: %w", err)
	}
	return c.consul.await(ctx, "Consul has no leader", func(ctx context.Context) (bool, error) {
		leader, err := c.Consul.Status().LeaderWithQueryOptions((&consul.QueryOptions{}).WithContext(ctx))
		return leader != "", err
	})
}

func (c *Cluster) startNomad(ctx context.Context) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	path := filepath.Join(c.config.Dir, "nomad.hcl")
	if err := os.WriteFile(path, []byte(nomadConfig(c.config, c.ConsulAddr, ports)), 0o600); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	c.NomadAddr = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if c.Nomad, err = nomad.NewClient(&nomad.Config{Address: c.NomadAddr}); err != nil {
		return fmt.Errorf("agent: nomad client: %w", err)
	}
	return c.runNomad(ctx)
}

// runNomad starts the agent with the configuration that is there and waits until its node is ready.
func (c *Cluster) runNomad(ctx context.Context) error {
	c.config.Progress("starting Nomad")
	var err error
	c.nomad, err = start(c.config.Nomad, c.config.Dir, "nomad.log", "agent", "-config", filepath.Join(c.config.Dir, "nomad.hcl"))
	if err != nil {
		return err
	}
	return c.nomad.await(ctx, "Nomad's node is not ready", func(ctx context.Context) (bool, error) {
		nodes, _, err := c.Nomad.Nodes().List((&nomad.QueryOptions{}).WithContext(ctx))
		return err == nil && len(nodes) == 1 && nodes[0].Status == "ready", err
	})
}

// NomadPID is the process id of the Nomad agent.
func (c *Cluster) NomadPID() int { return c.nomad.pid() }

// NomadLog is the path of the Nomad agent's log; plugins log there too.
func (c *Cluster) NomadLog() string { return filepath.Join(c.config.Dir, "nomad.log") }

// DataDir is the Nomad agent's data_dir.
func (c *Cluster) DataDir() string { return filepath.Join(c.config.Dir, "nomad") }

// KillNomad ends the Nomad agent by SIGKILL. Tasks stay as they are.
func (c *Cluster) KillNomad() error { return c.nomad.kill() }

// StopNomad ends the Nomad agent by SIGINT, as an upgrade does. Tasks stay as they are.
func (c *Cluster) StopNomad(ctx context.Context) error { return c.nomad.stop(ctx) }

// RestartNomad starts the Nomad agent again, on the same ports and data, after KillNomad or StopNomad.
func (c *Cluster) RestartNomad(ctx context.Context) error { return c.runNomad(ctx) }

// Wait returns when ctx ends, or with an error when an agent has ended that nobody told to. Agents that are started
// again while it waits are not looked at.
func (c *Cluster) Wait(ctx context.Context) error {
	var ended *process
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.nomad.done:
		ended = c.nomad
	case <-c.consul.done:
		ended = c.consul
	}
	return fmt.Errorf("agent: %s ended, its log is %s:\n%s", ended.name, ended.log, ended.lastLines())
}

// Stop purges every job, waits until its allocations are gone, and ends both agents.
func (c *Cluster) Stop(ctx context.Context) error {
	purged := c.purge(ctx)
	var stopped error
	if c.nomad != nil {
		stopped = c.nomad.stop(ctx)
	}
	return errors.Join(purged, stopped, c.end())
}

// end stops what still runs, without regard for jobs, and unmounts what Nomad left below Dir.
func (c *Cluster) end() error {
	var errs []error
	for _, p := range []*process{c.nomad, c.consul} {
		if p != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			errs = append(errs, p.stop(ctx))
			cancel()
		}
	}
	return errors.Join(append(errs, unmountBelow(c.config.Dir))...)
}

// purge deregisters all jobs, waits for their allocations to end and collects them.
func (c *Cluster) purge(ctx context.Context) error {
	if c.nomad == nil || c.nomad.ended() {
		return nil
	}
	query := (&nomad.QueryOptions{Namespace: "*"}).WithContext(ctx)
	jobs, _, err := c.Nomad.Jobs().List(query)
	if err != nil {
		return fmt.Errorf("agent: list jobs: %w", err)
	}
	for _, job := range jobs {
		write := (&nomad.WriteOptions{Namespace: job.Namespace}).WithContext(ctx)
		if _, _, err := c.Nomad.Jobs().Deregister(job.ID, true, write); err != nil {
			return fmt.Errorf("agent: purge job %s: %w", job.ID, err)
		}
	}
	err = c.nomad.await(ctx, "allocations still run", func(context.Context) (bool, error) {
		allocs, _, err := c.Nomad.Allocations().List(query)
		for _, alloc := range allocs {
			if alloc.ClientStatus == nomad.AllocClientStatusPending || alloc.ClientStatus == nomad.AllocClientStatusRunning {
				return false, fmt.Errorf("%s is %s", alloc.Name, alloc.ClientStatus)
			}
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	if err := c.Nomad.System().GarbageCollect(); err != nil {
		return fmt.Errorf("agent: collect garbage: %w", err)
	}
	return c.nomad.await(ctx, "allocation directories are still there", func(context.Context) (bool, error) {
		left, err := filepath.Glob(filepath.Join(c.DataDir(), "alloc", "*"))
		return err == nil && len(left) == 0, err
	})
}
