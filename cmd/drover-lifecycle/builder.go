package main

import (
	"flag"
	"fmt"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover/stager"
	"drover/stager/build"
	"drover/stager/docker"
	"drover/stager/trust"
)

// builder stages an app with buildpacks.
func (c *call) builder() int {
	cfg := build.DefaultConfig()
	set := c.newFlags()
	set.StringVar(&cfg.BuildDir, "buildDir", cfg.BuildDir, "directory of the app's files")
	set.StringVar(&cfg.BuildpacksDir, "buildpacksDir", cfg.BuildpacksDir, "directory of the platform's buildpacks")
	set.StringVar(&cfg.DownloadDir, "buildpacksDownloadDir", cfg.DownloadDir, "directory for buildpacks fetched by URL")
	set.StringVar(&cfg.CacheDir, "buildArtifactsCacheDir", cfg.CacheDir, "directory of what buildpacks keep between stagings")
	set.StringVar(&cfg.OutputDroplet, "outputDroplet", cfg.OutputDroplet, "file to write the droplet to")
	set.StringVar(&cfg.OutputCache, "outputBuildArtifactsCache", cfg.OutputCache, "file to write the cache to")
	set.StringVar(&cfg.OutputMetadata, "outputMetadata", cfg.OutputMetadata, "file to write the result to")
	set.BoolVar(&cfg.SkipDetect, "skipDetect", false, "run all buildpacks instead of the first that detects")
	set.BoolVar(&cfg.SkipVerification, "skipCertVerify", false, "accept any certificate when fetching buildpacks")
	order := set.String("buildpackOrder", "", "keys or URLs of buildpacks, separated by commas")
	// CredHub references are refused (package vcap), so there is nothing to try again; CC may still say how often.
	set.Int("credhubConnectAttempts", 3, "taken, without effect")
	set.Duration("credhubRetryDelay", time.Second, "taken, without effect")
	if err := c.parse(set, c.args); err != nil {
		return c.fail(err)
	}
	cfg.Order = list(*order)
	if err := missing(c.name, set); err != nil {
		return c.fail(err)
	}
	if len(cfg.Order) == 0 {
		return c.fail(stager.Fail(stager.ExitError, "%s: missing flag: -buildpackOrder", c.name))
	}
	return c.fail(build.Run(c.ctx, cfg, c.env, c.stdout, c.stderr))
}

// missing fails for a flag that has no value.
func missing(name string, set *flag.FlagSet) error {
	var err error
	set.VisitAll(func(f *flag.Flag) {
		if err == nil && f.Value.String() == "" {
			err = stager.Fail(stager.ExitError, "%s: missing flag: -%s", name, f.Name)
		}
	})
	return err
}

// dockerBuilder asks a registry about an image.
func (c *call) dockerBuilder() int {
	cfg := docker.Config{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, Pause: time.Second}
	set := c.newFlags()
	set.StringVar(&cfg.Ref, "dockerRef", "", "name of the image")
	set.StringVar(&cfg.User, "dockerUser", "", "user at the registry")
	set.StringVar(&cfg.Password, "dockerPassword", "", "password at the registry")
	set.StringVar(&cfg.OutputMetadata, "outputMetadataJSONFilename", "", "file to write the result to")
	insecure := set.String("insecureDockerRegistries", "", "registries without trusted TLS, separated by commas")
	obsolete(set)
	if err := c.parse(set, c.args); err != nil {
		return c.fail(err)
	}
	cfg.Insecure = list(*insecure)
	if err := c.checkDocker(&cfg); err != nil {
		return c.fail(err)
	}
	return c.fail(docker.Run(c.ctx, cfg, c.stdout))
}

func (c *call) checkDocker(cfg *docker.Config) error {
	switch {
	case cfg.Ref == "":
		return stager.Fail(stager.ExitError, "%s: missing flag: -dockerRef", c.name)
	case cfg.OutputMetadata == "":
		return stager.Fail(stager.ExitError, "%s: missing flag: -outputMetadataJSONFilename", c.name)
	case (cfg.User == "") != (cfg.Password == ""):
		return stager.Fail(stager.ExitError, "%s: -dockerUser and -dockerPassword go together", c.name)
	}
	verified, err := trust.Transport(true)
	if err != nil {
		return fmt.Errorf("preparing connections: %w", err)
	}
	unverified, err := trust.Transport(false)
	if err != nil {
		return fmt.Errorf("preparing connections: %w", err)
	}
	cfg.Transport, cfg.InsecureTransport = verified, unverified
	return nil
}

// obsolete takes the flags by which stagers of 2015 and 2016 asked for a private image cache. Images are now always
// taken from their registry, so they change nothing, as in Cloud Foundry's own builder.
func obsolete(set *flag.FlagSet) {
	for _, name := range []string{
		"dockerDaemonExecutablePath", "dockerDaemonUnixSocket", "dockerRegistryHost", "dockerRegistryPort",
		"dockerRegistryIPs", "dockerLoginServer", "dockerEmail",
	} {
		set.String(name, "", "obsolete")
	}
	set.Bool("cacheDockerImage", false, "obsolete")
}
