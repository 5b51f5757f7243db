// Package docker is the Docker lifecycle's builder: it asks a registry what an image wants to run and writes that down
// as a staging result. No image is downloaded; the node does that when the app starts.
package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"drover/stager"
)

// attempts is how often a registry is asked before staging fails.
const attempts = 4

// Config is builder's flags.
type Config struct {
	// Ref names the image, as people write it.
	Ref string
	// User and Password are given both or not at all.
	User, Password string
	// Insecure lists registries (host or host:port) that may speak plain HTTP or show any certificate.
	Insecure []string
	// OutputMetadata is the result file.
	OutputMetadata string
	// Transport speaks to registries, InsecureTransport to those in Insecure.
	Transport, InsecureTransport http.RoundTripper
	// Platform is chosen from images for several.
	Platform v1.Platform
	// Pause is what lies between attempts.
	Pause time.Duration
}

// Run writes the result file of one image. Progress goes to stdout. Its errors carry stager.ExitDocker.
func Run(ctx context.Context, cfg Config, stdout io.Writer) error {
	result, err := Inspect(ctx, cfg, stdout)
	if err != nil {
		return stager.Fail(stager.ExitDocker, "Staging process failed: %w", err)
	}
	text, err := json.Marshal(result)
	if err != nil {
		return stager.Fail(stager.ExitDocker, "Staging process failed: encoding the result: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.OutputMetadata), 0o755); err != nil { //nolint:gosec // The executor reads it.
		return stager.Fail(stager.ExitDocker, "Staging process failed: making the result's directory: %w", err)
	}
	if err := os.WriteFile(cfg.OutputMetadata, append(text, '\n'), 0o644); err != nil { //nolint:gosec // As above.
		return stager.Fail(stager.ExitDocker, "Staging process failed: writing the result: %w", err)
	}
	return nil
}

// Inspect asks the registry and returns the result.
func Inspect(ctx context.Context, cfg Config, stdout io.Writer) (*stager.DockerResult, error) {
	ref, tr, err := reference(cfg)
	if err != nil {
		return nil, err
	}
	tr = guard{inner: tr, plain: slices.Contains(cfg.Insecure, ref.Context().RegistryStr())}
	options := []remote.Option{
		remote.WithTransport(tr), remote.WithPlatform(cfg.Platform),
		remote.WithRetryBackoff(remote.Backoff{Duration: time.Millisecond, Steps: 1}), // Attempts are counted here.
	}
	if cfg.User != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: cfg.User, Password: cfg.Password}))
	}
	image, err := fetch(ctx, cfg, ref, options, stdout)
	if err != nil {
		return nil, err
	}
	return describe(ref, &image.Config)
}

// reference parses the image's name, and says by which transport its registry is reached.
func reference(cfg Config) (name.Reference, http.RoundTripper, error) {
	// Cloud Controller of some years writes a URL.
	text := strings.TrimPrefix(strings.TrimPrefix(cfg.Ref, "docker://"), "/")
	ref, err := name.ParseReference(text)
	if err != nil {
		return nil, nil, fmt.Errorf("invalid image name: %w", err)
	}
	if !slices.Contains(cfg.Insecure, ref.Context().RegistryStr()) {
		return ref, cfg.Transport, nil
	}
	if ref, err = name.ParseReference(text, name.Insecure); err != nil {
		return nil, nil, fmt.Errorf("invalid image name: %w", err)
	}
	return ref, cfg.InsecureTransport, nil
}

// errPlain says why a registry was not asked.
var errPlain = errors.New("it does not speak TLS, and is not among the insecure registries")

// guard refuses plain HTTP to registries that are not in Config.Insecure. The library would fall back to it for
// registries with private addresses, and send the password along; addresses of loopback are nobody else's.
type guard struct {
	inner http.RoundTripper
	plain bool
}

// RoundTrip makes a request that may be made.
func (g guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != "https" && !g.plain && !loopback(request.URL.Hostname()) {
		return nil, fmt.Errorf("registry %s: %w", request.URL.Host, errPlain)
	}
	return g.inner.RoundTrip(request)
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// fetch reads the image's configuration, trying again where that can help.
func fetch(ctx context.Context, cfg Config, ref name.Reference, options []remote.Option, stdout io.Writer) (*v1.ConfigFile, error) {
	options = append(options, remote.WithContext(ctx))
	for attempt := 1; ; attempt++ {
		file, err := configFile(ref, options)
		if err == nil {
			return file, nil
		}
		err = explain(ref, err)
		if attempt == attempts || !temporary(err) || ctx.Err() != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(stdout, "Attempt %d of %d to read the image's metadata failed: %v\n", attempt, attempts, err)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the next attempt: %w", ctx.Err())
		case <-time.After(cfg.Pause):
		}
	}
}

func configFile(ref name.Reference, options []remote.Option) (*v1.ConfigFile, error) {
	image, err := remote.Image(ref, options...)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if file.RootFS.Type == "" && len(file.RootFS.DiffIDs) == 0 {
		return nil, errors.New("this is no image: its configuration has no root file system")
	}
	return file, nil
}

// temporary reports whether asking again may help. A registry that says no will say it again.
func temporary(err error) bool {
	var te *transport.Error
	if !errors.As(err, &te) {
		return true
	}
	return te.StatusCode >= http.StatusInternalServerError || te.StatusCode == http.StatusTooManyRequests || te.StatusCode == http.StatusRequestTimeout
}

// explain says what to look at, for the answers whose cure is with the person who staged.
func explain(ref name.Reference, err error) error {
	var te *transport.Error
	if !errors.As(err, &te) {
		return err
	}
	switch te.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("registry %s refuses access to %s; check user and password: %w", ref.Context().RegistryStr(), ref.Name(), err)
	case http.StatusNotFound:
		return fmt.Errorf("registry %s has no image %s: %w", ref.Context().RegistryStr(), ref.Name(), err)
	default:
		return err
	}
}

// describe makes the result from what the image says.
func describe(ref name.Reference, config *v1.Config) (*stager.DockerResult, error) {
	ports, err := exposed(config.ExposedPorts)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(stager.ExecutionMetadata{
		Cmd: config.Cmd, Entrypoint: config.Entrypoint, Workdir: config.WorkingDir, Ports: ports, User: config.User,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the execution metadata: %w", err)
	}
	return &stager.DockerResult{
		LifecycleType:     stager.LifecycleDocker,
		LifecycleMetadata: stager.DockerMetadata{DockerImage: imageName(ref)},
		ProcessTypes:      stager.ProcessTypes{"web": webCommand(config)},
		ExecutionMetadata: string(text),
	}, nil
}

// webCommand is for people to look at: the launcher goes by the execution metadata. An entrypoint without a command
// leaves a space at the end, as it always has; consumers compare.
func webCommand(config *v1.Config) string {
	cmd := strings.Join(config.Cmd, " ")
	if len(config.Entrypoint) == 0 {
		return cmd
	}
	return strings.Join(config.Entrypoint, " ") + " " + cmd
}

// imageName writes a reference without the host when that is Docker Hub.
func imageName(ref name.Reference) string {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	repository := ref.Context().RepositoryStr()
	if host := ref.Context().RegistryStr(); host != name.DefaultRegistry {
		repository = host + "/" + repository
	}
	return repository + separator + ref.Identifier()
}

// exposed sorts ports by number, tcp first.
func exposed(ports map[string]struct{}) ([]stager.Port, error) {
	var out []stager.Port
	for text := range ports {
		number, protocol, _ := strings.Cut(text, "/")
		if protocol == "" {
			protocol = "tcp"
		}
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("the image exposes %q, which is no port", text)
		}
		out = append(out, stager.Port{Port: uint16(port), Protocol: strings.ToLower(protocol)})
	}
	slices.SortFunc(out, func(a, b stager.Port) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out, nil
}
