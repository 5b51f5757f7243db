package recipe

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func platform() Platform {
	return Platform{
		CC:         "https://cc.test:9023",
		CCUploader: "https://uploader.test:9091",
		Lifecycles: map[string]string{
			"buildpack/cflinuxfs4": "https://files.test:8080/v1/static/buildpack_app_lifecycle/buildpack_app_lifecycle.tgz",
			"docker":               "https://files.test:8080/v1/static/docker_app_lifecycle/docker_app_lifecycle.tgz",
		},
		Stack:              "cflinuxfs4",
		InsecureRegistries: []string{"172.30.0.1:5000"},
		SystemDomain:       "dev.test",
		Staging:            StagingLimits{Timeout: 15 * time.Minute, MemoryMB: 1024, DiskMB: 4096, NoFile: 16384},
		PIDs:               2048,
		EgressRules: []*models.SecurityGroupRule{{
			Protocol: "all", Destinations: []string{"0.0.0.0-9.255.255.255"}, Annotations: []string{"security_group_id:public"},
		}},
	}
}

func app() App {
	return App{
		GUID: "0a0a0a0a-0000-4000-8000-000000000001", Name: "hello",
		Place:       Place{OrgGUID: "org-1", OrgName: "org", SpaceGUID: "space-1", SpaceName: "space"},
		ProcessGUID: "0a0a0a0a-0000-4000-8000-000000000001", Version: "0b0b0b0b-0000-4000-8000-000000000002",
		UpdatedAt: time.UnixMicro(1760000000250000), Instances: 2, MemoryMB: 256, DiskMB: 512,
		Env:   map[string]string{"ZOO": "z", "APPLE": "a"},
		Check: HealthCheck{Type: CheckPort, Timeout: time.Minute},
		Droplet: Droplet{
			Lifecycle: Buildpack, Stack: "cflinuxfs4", SHA256: strings.Repeat("ab", 32),
			ProcessTypes: map[string]string{"web": "node server.js"},
		},
	}
}

func dockerApp() App {
	a := app()
	a.Check = HealthCheck{Type: CheckHTTP, Endpoint: "/healthz", Timeout: 90 * time.Second}
	a.Droplet = Droplet{
		Lifecycle: Docker, Image: "172.30.0.1:5000/demo/web:1",
		ProcessTypes:      map[string]string{"web": "/usr/sbin/nginx -g daemon off;"},
		ExecutionMetadata: `{"entrypoint":["/usr/sbin/nginx"],"ports":[{"Port":8081,"Protocol":"tcp"}],"user":"www-data"}`,
	}
	return a
}

func TestRecipes(t *testing.T) {
	build := Build{
		GUID: "build-1", PackageGUID: "package-1", PackageSHA256: strings.Repeat("cd", 32), CacheSHA256: strings.Repeat("ef", 32),
		Buildpacks: []BuildpackFile{{Name: "node", Key: "node-key", URL: "https://files.test:8080/v1/static/buildpacks/node.zip", SHA256: strings.Repeat("12", 32)}},
	}
	stories := map[string]func() (any, error){
		"stage-buildpack": func() (any, error) { return Staging(platform(), app(), build) },
		"stage-docker": func() (any, error) {
			return Staging(platform(), app(), Build{GUID: "build-2", Image: "172.30.0.1:5000/demo/web:1"})
		},
		"lrp-buildpack":   func() (any, error) { return LRP(platform(), app()) },
		"lrp-docker-http": func() (any, error) { return LRP(platform(), dockerApp()) },
		"task-buildpack": func() (any, error) {
			return Task(platform(), app(), AppTask{GUID: "task-1", Name: "migrate", Command: "rake db:migrate"})
		},
		"task-docker": func() (any, error) {
			return Task(platform(), dockerApp(), AppTask{GUID: "task-2", Name: "env", Command: "env"})
		},
		"update-scale": func() (any, error) { return Update(platform(), app()) },
	}
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			got, err := story()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
			valid(t, got)
		})
	}
}

// valid sends the message through the checks that a BBS makes.
func valid(t *testing.T, message any) {
	t.Helper()
	var err error
	switch m := message.(type) {
	case *models.TaskDefinition:
		err = (&models.DesireTaskRequest{TaskDefinition: m, TaskGuid: "guid", Domain: DomainTasks}).Validate()
	case *models.DesiredLRP:
		err = (&models.DesireLRPRequest{DesiredLrp: m}).Validate()
	case *models.DesiredLRPUpdate:
		err = (&models.UpdateDesiredLRPRequest{ProcessGuid: "guid", Update: m}).Validate()
	}
	if err != nil {
		t.Errorf("a BBS would refuse it: %v", err)
	}
}

func golden(t *testing.T, name string, got any) {
	t.Helper()
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLRP_healthCheckProcess(t *testing.T) {
	a := app()
	a.Check.Type = CheckProcess
	lrp, err := LRP(platform(), a)
	if err != nil {
		t.Fatal(err)
	}
	if lrp.Monitor != nil || lrp.CheckDefinition != nil {
		t.Errorf("a process check sent monitor %v and checks %v", lrp.Monitor, lrp.CheckDefinition)
	}
}

func TestRecipes_refuse(t *testing.T) {
	a := app()
	a.Droplet.Stack = "cflinuxfs3"
	if _, err := LRP(platform(), a); err == nil || !strings.Contains(err.Error(), "buildpack/cflinuxfs3") {
		t.Errorf("an unknown stack gave %v", err)
	}
	docker := dockerApp()
	docker.Droplet.ExecutionMetadata = "no JSON"
	if _, err := LRP(platform(), docker); err == nil {
		t.Error("broken execution metadata was taken")
	}
}

func TestImageURL(t *testing.T) {
	hex := strings.Repeat("a", 64)
	for reference, want := range map[string]string{
		"busybox":                        "docker:///library/busybox",
		"busybox:1.36":                   "docker:///library/busybox#1.36",
		"cloudfoundry/app":               "docker:///cloudfoundry/app",
		"localhost/app:1":                "docker://localhost/app#1",
		"172.30.0.1:5000/demo/web:1":     "docker://172.30.0.1:5000/demo/web#1",
		"reg.test/a/b":                   "docker://reg.test/a/b",
		"a/b@sha256:" + hex:              "docker:///a/b@sha256#" + hex,
		"reg.test/a/b:tag@sha256:" + hex: "docker://reg.test/a/b#tag@sha256:" + hex,
	} {
		got, err := ImageURL(reference)
		if err != nil || got != want {
			t.Errorf("%s: got %q and %v, want %q", reference, got, err, want)
		}
	}
	for _, reference := range []string{"", "docker://x/y", "reg.test/", "a b"} {
		if got, err := ImageURL(reference); !errors.Is(err, ErrImage) {
			t.Errorf("%q became %q, %v", reference, got, err)
		}
	}
}

func TestCPUWeight(t *testing.T) {
	for memory, want := range map[int32]uint32{16: 1, 128: 1, 256: 3, 1024: 12, 8192: 100, 20000: 100} {
		if got := cpuWeight(memory); got != want {
			t.Errorf("%d MB: got %d, want %d", memory, got, want)
		}
	}
}

func TestAnnotation(t *testing.T) {
	for micro, want := range map[int64]string{1760000000250000: "1760000000.25", 1760000000000000: "1760000000.0"} {
		if got := Annotation(App{UpdatedAt: time.UnixMicro(micro)}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
