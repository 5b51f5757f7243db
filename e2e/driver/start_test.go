//go:build e2e

package driver_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/nomad/structs"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

func TestStart(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("9 the registry is down", func(t *testing.T) { checkTemporary(t, n) })
	t.Run("9 the image is not there", func(t *testing.T) {
		err := n.Task(t, `image = "`+n.Registry+`/none/such:1"`).TryStart()
		if err == nil || structs.IsRecoverable(err) {
			t.Errorf("a missing image: %v; trying again cannot help", err)
		}
	})
	t.Run("10 the whole time allowed", func(t *testing.T) {
		mute := listener(t)
		impatient := plugin.Start(t, plugin.Options{Config: `image_pull_timeout = "5s"`}) // too little for a herd on a slow machine
		contains(t, node{Node: impatient}.refused(t, `image = "`+mute.Addr().String()+`/slow:1"`), "image_pull_timeout")
	})
	t.Run("11 many at once", func(t *testing.T) { checkOnePull(t, n) })
	t.Run("14 a command that is missing", func(t *testing.T) {
		contains(t, n.refused(t, `image = "`+n.ref+"\"\nentrypoint = [\"/bin/none\"]"), "/bin/none")
	})
	t.Run("14 a command that is not executable", func(t *testing.T) {
		contains(t, n.refused(t, `image = "`+n.ref+"\"\nentrypoint = [\"/etc/passwd\"]"), "/etc/passwd")
	})
	t.Run("15 leftovers of the same name", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		n.Kill(t)
		n.Launch(t)
		// This plugin knows nothing of the task, which runs: Nomad would start it again under its id.
		if err := task.SetConfig(n.probe("", "echo", "second")); err != nil {
			t.Fatal(err)
		}
		if exit := task.Run(t); exit.ExitCode != 0 || !strings.Contains(task.Stdout(), "second") {
			t.Errorf("%+v, %q", exit, task.Stdout())
		}
	})
	t.Run("16 twenty at the same time", func(t *testing.T) {
		var group sync.WaitGroup
		var ended atomic.Int32
		for range 20 {
			task := n.Task(t, n.probe("", "id"))
			group.Go(func() {
				if err := task.TryStart(); err != nil {
					t.Error(err)
				} else if exit := task.Wait(t); exit.ExitCode == 0 {
					ended.Add(1)
				}
			})
		}
		group.Wait()
		if ended.Load() != 20 {
			t.Errorf("%d of 20 did what they should", ended.Load())
		}
	})
}

// listener listens on a port of its own, and answers nobody.
func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// checkTemporary wants an error that Nomad takes for one of the network.
func checkTemporary(t *testing.T, n node) {
	t.Helper()
	closed := listener(t)
	address := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	err := n.Task(t, `image = "`+address+`/team/app:1"`).TryStart()
	var recoverable *structs.RecoverableError
	if !errors.As(err, &recoverable) || !recoverable.IsRecoverable() || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v; it must be recoverable and name the registry", err)
	}
}

// checkOnePull starts tasks of one image together and counts the blobs that the registry sent.
func checkOnePull(t *testing.T, n node) {
	t.Helper()
	inner := drivertest.Serve(t)
	var mu sync.Mutex
	blobs := map[string]int{}
	target := &url.URL{Scheme: "http", Host: inner}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			mu.Lock()
			blobs[r.URL.Path]++
			mu.Unlock()
			<-time.After(100 * time.Millisecond) // so that the others come while it is under way
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	front := strings.TrimPrefix(server.URL, "http://")
	drivertest.Push(t, inner, "herd:1", drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe", "id"}, Env: []string{"HERD=1"}}))
	var group sync.WaitGroup
	for range 10 {
		task := n.Task(t, `image = "`+front+`/herd:1"`)
		group.Go(func() {
			if err := task.TryStart(); err != nil {
				t.Error(err)
				return
			}
			task.Wait(t)
		})
	}
	group.Wait()
	if len(blobs) == 0 {
		t.Error("nothing was pulled")
	}
	for path, times := range blobs {
		if times > 1 {
			t.Errorf("%s was transferred %d times", path, times)
		}
	}
}

func TestStart_leavesNothing(t *testing.T) {
	n := start(t, plugin.Options{})
	t.Run("52 a failed start", func(t *testing.T) {
		n.refused(t, `image = "`+n.ref+"\"\nentrypoint = [\"/bin/none\"]")
		if left := n.Leftovers(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("50 an unknown id", func(t *testing.T) {
		task := n.Task(t, n.probe("", "trap", "600"))
		task.Start(t)
		n.Kill(t)
		n.Launch(t)
		if err := n.DestroyTask(task.Config.ID, true); err != nil {
			t.Error(err)
		}
		for _, pattern := range []string{"state/tasks/*", "images/leases/*"} {
			if left, _ := filepath.Glob(filepath.Join(n.Dir, pattern)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
		if _, err := os.Stat(filepath.Join(n.Dir, "state")); err != nil {
			t.Error(err)
		}
	})
}
