package docker_test

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"drover/stager"
	"drover/stager/docker"
)

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: "amd64"} }

// image has one layer and a configuration.
func image(t *testing.T, config v1.Config) v1.Image {
	t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, with(t, img, config))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func with(t *testing.T, img v1.Image, config v1.Config) *v1.ConfigFile {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	return file
}

// server is a registry, behind whatever wrap puts before it.
func server(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	s := httptest.NewServer(wrap(registry.New(registry.Logger(log.New(io.Discard, "", 0)))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func open(h http.Handler) http.Handler { return h }

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
}

func config(t *testing.T, ref string) docker.Config {
	t.Helper()
	return docker.Config{
		Ref: ref, OutputMetadata: filepath.Join(t.TempDir(), "new", "result.json"), Platform: platform(),
		Transport: http.DefaultTransport, InsecureTransport: http.DefaultTransport,
	}
}

func TestRun_result(t *testing.T) {
	host := server(t, open)
	for _, row := range []struct {
		promise   string
		config    v1.Config
		web, exec string
	}{
		{
			"everything said",
			v1.Config{
				Cmd: []string{"serve", "-v"}, Entrypoint: []string{"/entry", "--"}, WorkingDir: "/srv", User: "1000:1000",
				ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}, "53/tcp": {}, "80": {}},
			},
			"/entry -- serve -v",
			`{"cmd":["serve","-v"],"entrypoint":["/entry","--"],"workdir":"/srv","ports":[{"Port":53,"Protocol":"tcp"},{"Port":53,"Protocol":"udp"},` +
				`{"Port":80,"Protocol":"tcp"},{"Port":8080,"Protocol":"tcp"}],"user":"1000:1000"}`,
		},
		{"a command only", v1.Config{Cmd: []string{"serve"}}, "serve", `{"cmd":["serve"]}`},
		{"an entrypoint only leaves a space", v1.Config{Entrypoint: []string{"/entry"}}, "/entry ", `{"entrypoint":["/entry"]}`},
		{"nothing said", v1.Config{}, "", `{}`},
	} {
		t.Run(row.promise, func(t *testing.T) {
			ref := host + "/some/app"
			push(t, ref, image(t, row.config))
			cfg := config(t, ref)
			if err := docker.Run(t.Context(), cfg, io.Discard); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(cfg.OutputMetadata)
			if err != nil {
				t.Fatal(err)
			}
			var got stager.DockerResult
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			want := stager.DockerResult{
				LifecycleType: "docker", LifecycleMetadata: stager.DockerMetadata{DockerImage: ref + ":latest"},
				ProcessTypes: stager.ProcessTypes{"web": row.web}, ExecutionMetadata: row.exec,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestInspect_names(t *testing.T) {
	host := server(t, open)
	img := image(t, v1.Config{})
	push(t, host+"/app:v1", img)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ promise, ref, want string }{
		{"a tag", host + "/app:v1", host + "/app:v1"},
		{"a digest", host + "/app@" + digest.String(), host + "/app@" + digest.String()},
		{"a URL", "docker://" + host + "/app:v1", host + "/app:v1"},
	} {
		got, err := docker.Inspect(t.Context(), config(t, row.ref), io.Discard)
		if err != nil {
			t.Errorf("%s: %v", row.promise, err)
			continue
		}
		if got.LifecycleMetadata.DockerImage != row.want {
			t.Errorf("%s: got %s, want %s", row.promise, got.LifecycleMetadata.DockerImage, row.want)
		}
	}
}

// hub answers for Docker Hub, from a registry of the test.
type hub struct{ host string }

func (h hub) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != "index.docker.io" {
		return nil, http.ErrNotSupported
	}
	there := req.Clone(req.Context())
	there.URL.Scheme, there.URL.Host, there.Host = "http", h.host, h.host
	resp, err := http.DefaultTransport.RoundTrip(there)
	if err == nil {
		resp.Request = req // The library goes on by the scheme that answered.
	}
	return resp, err
}

func TestInspect_hubHasNoHost(t *testing.T) {
	host := server(t, open)
	push(t, host+"/library/busybox", image(t, v1.Config{Cmd: []string{"sh"}}))
	for _, ref := range []string{"busybox", "library/busybox:latest", "docker:///library/busybox"} {
		cfg := config(t, ref)
		cfg.Transport = hub{host}
		got, err := docker.Inspect(t.Context(), cfg, io.Discard)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if got.LifecycleMetadata.DockerImage != "library/busybox:latest" {
			t.Errorf("%s: got %s", ref, got.LifecycleMetadata.DockerImage)
		}
	}
}

func TestInspect_choosesThePlatform(t *testing.T) {
	host := server(t, open)
	index := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"arm64", "amd64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image(t, v1.Config{Cmd: []string{arch}}),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	tag, err := name.NewTag(host + "/multi")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		cfg := config(t, host+"/multi")
		cfg.Platform.Architecture = arch
		got, err := docker.Inspect(t.Context(), cfg, io.Discard)
		if err != nil || got.ProcessTypes["web"] != arch {
			t.Errorf("%s: got %v, %v", arch, got, err)
		}
	}
}

// locked lets a user with a password in.
func locked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "someone" || password != "canary" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func TestInspect_auth(t *testing.T) {
	var inner http.Handler
	host := server(t, func(h http.Handler) http.Handler { inner = h; return locked(h) })
	// The registry is filled by another door.
	back := httptest.NewServer(inner)
	t.Cleanup(back.Close)
	push(t, strings.TrimPrefix(back.URL, "http://")+"/app", image(t, v1.Config{Cmd: []string{"x"}}))
	cfg := config(t, host+"/app")
	cfg.User, cfg.Password = "someone", "canary"
	if got, err := docker.Inspect(t.Context(), cfg, io.Discard); err != nil || got.ProcessTypes["web"] != "x" {
		t.Errorf("with the password: %v, %v", got, err)
	}
	cfg.Password = "canary2"
	_, err := docker.Inspect(t.Context(), cfg, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "refuses access") || strings.Contains(err.Error(), "canary") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// failing answers an error for the first requests of a manifest.
func failing(times int32, status int, asked *atomic.Int32) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") && asked.Add(1) <= times {
				http.Error(w, "later", status)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestRun_attempts(t *testing.T) {
	for _, row := range []struct {
		promise string
		times   int32
		status  int
		asked   int32
		code    stager.ExitCode
	}{
		{"a registry may fail three times", 3, http.StatusServiceUnavailable, 4, stager.ExitOK},
		{"not four times", 4, http.StatusServiceUnavailable, 4, stager.ExitDocker},
		{"a refusal is not tried again", 9, http.StatusForbidden, 1, stager.ExitDocker},
		{"a missing image is not tried again", 9, http.StatusNotFound, 1, stager.ExitDocker},
	} {
		t.Run(row.promise, func(t *testing.T) {
			var asked atomic.Int32
			host := server(t, failing(row.times, row.status, &asked))
			push(t, host+"/app", image(t, v1.Config{}))
			asked.Store(0)
			cfg := config(t, host+"/app")
			err := docker.Run(t.Context(), cfg, io.Discard)
			if got := stager.CodeOf(err); got != row.code {
				t.Errorf("exit code %d, want %d: %v", got, row.code, err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "Staging process failed: ") {
				t.Errorf("error %q", err)
			}
			if got := asked.Load(); got != row.asked {
				t.Errorf("asked %d times, want %d", got, row.asked)
			}
		})
	}
}

func TestInspect_insecureRegistries(t *testing.T) {
	s := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "https://")
	tag, err := name.NewTag(host + "/app")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image(t, v1.Config{}), remote.WithTransport(s.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, host+"/app")
	cfg.InsecureTransport = s.Client().Transport
	if _, err := docker.Inspect(t.Context(), cfg, io.Discard); err == nil {
		t.Error("a registry with an unknown certificate is trusted")
	}
	cfg.Insecure = []string{"other", host}
	if _, err := docker.Inspect(t.Context(), cfg, io.Discard); err != nil {
		t.Errorf("listed as insecure: %v", err)
	}
}

func TestInspect_refuses(t *testing.T) {
	host := server(t, open)
	push(t, host+"/ports", image(t, v1.Config{ExposedPorts: map[string]struct{}{"http/tcp": {}}}))
	for _, row := range []struct{ promise, ref, says string }{
		{"a bad name", "Not A Name", "invalid image name"},
		{"an unreachable registry", "127.0.0.1:1/app", "connection refused"},
		{"a port that is none", host + "/ports", `"http/tcp"`},
	} {
		_, err := docker.Inspect(t.Context(), config(t, row.ref), io.Discard)
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want %q", row.promise, err, row.says)
		}
	}
}

// plainOnly is a registry of a private network that speaks no TLS; it counts who comes without.
type plainOnly struct {
	host  string
	plain *atomic.Int32
}

func (p plainOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" {
		return nil, http.ErrSchemeMismatch
	}
	p.plain.Add(1)
	req = req.Clone(req.Context())
	req.URL.Host, req.Host = p.host, p.host
	return http.DefaultTransport.RoundTrip(req)
}

func TestInspect_sendsNoPasswordInPlainText(t *testing.T) {
	host := server(t, open)
	push(t, host+"/app", image(t, v1.Config{}))
	var plain atomic.Int32
	cfg := config(t, "10.1.2.3:5000/app")
	cfg.User, cfg.Password = "someone", "canary"
	cfg.Transport, cfg.InsecureTransport = plainOnly{host, &plain}, plainOnly{host, &plain}
	_, err := docker.Inspect(t.Context(), cfg, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS") || plain.Load() != 0 {
		t.Errorf("asked %d times without TLS: %v", plain.Load(), err)
	}
	cfg.Insecure = []string{"10.1.2.3:5000"}
	if _, err := docker.Inspect(t.Context(), cfg, io.Discard); err != nil {
		t.Errorf("listed as insecure: %v", err)
	}
}
