//go:build e2e

package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// said tells whether a task had an event with a text.
func said(n *plugin.Node, task *plugin.Task, text string) bool {
	for _, event := range n.Events(task.Config.ID) {
		if strings.Contains(event.Message, text) {
			return true
		}
	}
	return false
}

// TestPlugin_images runs tasks from everywhere that an image can come from, and with a registry that has gone.
func TestPlugin_images(t *testing.T) {
	n := plugin.Start(t, plugin.Options{Config: `pull_activity_timeout = "5s"`})
	image := drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, Cmd: []string{"exit", "0"}, User: "vcap"})
	drivertest.Push(t, n.Registry, "team/probe:1", image)
	var down atomic.Bool
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: n.Registry})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/probe:1"
	ends := func(t *testing.T, task *plugin.Task) {
		t.Helper()
		task.Start(t)
		if exit := task.Wait(t); exit.ExitCode != 0 {
			t.Errorf("it ended with %+v", exit)
		}
	}

	t.Run("a tag, as docker's URL", func(t *testing.T) {
		task := n.Task(t, `image = "docker://`+ref+`"`)
		ends(t, task)
		for _, phase := range []string{driver.PhaseResolve, driver.PhasePull, driver.PhaseUnpack} {
			found := false
			for _, event := range n.Events(task.Config.ID) {
				found = found || event.Annotations[driver.AnnotationPhase] == phase && event.Annotations[driver.AnnotationMillis] != ""
			}
			if !found {
				t.Errorf("no event tells how long %s took", phase)
			}
		}
	})
	t.Run("a tag whose registry has gone", func(t *testing.T) {
		down.Store(true)
		defer down.Store(false)
		task := n.Task(t, `image = "`+ref+`"`)
		ends(t, task)
		if !said(n, task, "meant before") {
			t.Errorf("nothing was said: %+v", n.Events(task.Config.ID))
		}
		forced := n.Task(t, "image = \""+ref+"\"\nforce_pull = true")
		if _, _, err := n.StartTask(forced.Config); err == nil || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("force_pull: %v", err)
		}
	})
	t.Run("what docker save has written", func(t *testing.T) {
		tag, err := name.NewTag("team/probe:1")
		if err != nil {
			t.Fatal(err)
		}
		for _, config := range []string{"load = \"image.tar\"\nimage = \"team/probe:1\"", `image = "docker-archive:local/image.tar"`} {
			task := n.Task(t, config)
			local := task.Config.TaskDir().LocalDir
			if err := os.MkdirAll(local, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tarball.WriteToFile(filepath.Join(local, "image.tar"), tag, image); err != nil {
				t.Fatal(err)
			}
			ends(t, task)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		for config, says := range map[string]string{
			`image = "` + n.Registry + `/team/none:1"`:                      "not found",
			"image = \"" + ref + "\"\nplatform = \"windows/amd64\"":         "windows",
			"image = \"" + ref + "\"\nplatform = \"linux/s390x\"":           "linux/s390x",
			`image = "docker-archive:/etc/passwd"`:                          "allow_host_paths",
			`image = "docker-archive:local/missing.tar"`:                    "missing.tar",
			`load = "../../../etc/passwd"`:                                  "load",
			"image = \"" + ref + "\"\nimage_pull_timeout = \"-1s\"":         "image_pull_timeout",
			"image = \"" + ref + "\"\nforce_pull = true\nrootfs = \"/srv\"": "only one of them",
		} {
			task := n.Task(t, config)
			if _, _, err := n.StartTask(task.Config); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", config, err, says)
			}
		}
	})
}

// TestPlugin_collection wants unused images to go, and those in use or on the prefetch list to stay.
func TestPlugin_collection(t *testing.T) {
	registry := drivertest.Serve(t)
	image := drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "vcap"})
	ref := drivertest.Push(t, registry, "team/probe:1", image)
	kept := drivertest.Push(t, registry, "team/kept:1", drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("kept", 0o644, "kept"))))
	n := plugin.Start(t, plugin.Options{Config: `
prefetch = ["` + kept + `", "127.0.0.1:1/nobody/there:1"]
gc {
  image_delay    = "0s"
  high_watermark = 2
  low_watermark  = 1
}`})
	here := func() int {
		found, _ := filepath.Glob(filepath.Join(n.Dir, "images/layers/*/*/*")) // the pattern is good
		return len(found)
	}
	await := func(what string, want int) {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); here() != want; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d layers are here, want %d\n%s", what, here(), want, n.Log())
			}
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // a condition is waited for
		}
	}
	await("prefetched", 1)
	task := n.Task(t, `image = "`+ref+`"
args = ["sleep", "600"]`)
	task.Start(t)
	n.Kill(t)
	n.Launch(t) // which collects at once
	await("in use", 2)
	if err := n.RecoverTask(task.Handle); err != nil {
		t.Fatal(err)
	}
	if err := n.StopTask(task.Config.ID, 0, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if err := n.DestroyTask(task.Config.ID, true); err != nil {
		t.Fatal(err)
	}
	n.Kill(t)
	n.Launch(t)
	await("unused", 1)
	for deadline := time.Now().Add(30 * time.Second); ; { // the name goes first, then the files
		half, _ := filepath.Glob(filepath.Join(n.Dir, "images/staging/*/*")) // the pattern is good
		if len(half) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left in staging: %v", half)
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // a condition is waited for
	}
	if !strings.Contains(n.Log(), "127.0.0.1:1/nobody/there:1") {
		t.Error("nothing is logged of a prefetch that fails")
	}
}
