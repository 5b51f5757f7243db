//go:build e2e

package e2e_test

import (
	"crypto/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
)

// TestDriver_failures wants each failure to be told in the task's events, by the name of the thing, and to leave
// nothing behind.
func TestDriver_failures(t *testing.T) {
	n := startDriverNode(t, 64, `
    stack "gone" {
      rootfs = "/nowhere/at/all"
    }`)
	good := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/probe:1")
	noise := make([]byte, 96<<20) // more than the image directory's file system holds, and does not compress
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	big := n.push(t, drivertest.Image(t, driver.ImageConfig{Cmd: []string{"/x"}}, drivertest.Tar(t, drivertest.File("big", 0o644, string(noise)))), "team/big:1")
	droplet := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(drivertest.Tar(t, drivertest.File("app/x", 0o644, "x")))
	}))
	t.Cleanup(droplet.Close)

	for _, row := range []struct {
		promise string
		config  map[string]any
		says    []string
	}{
		{"an image that does not exist", map[string]any{"image": n.registry + "/team/absent:1"}, []string{"team/absent"}},
		{"a name that is none", map[string]any{"image": "UPPER/case:1"}, []string{"UPPER/case"}},
		{"a registry that does not answer", map[string]any{"image": deadAddress(t) + "/team/app:1"}, []string{"/team/app"}},
		{"a command that is not there", map[string]any{"image": good, "entrypoint": []string{"/bin/absent"}}, []string{"/bin/absent"}},
		{"a droplet with a wrong checksum", map[string]any{"image": good, "command": "x", "droplet": droplet.URL + "/d.tar", "droplet_checksum": "sha256:" + strings.Repeat("0", 64)},
			[]string{"droplet", "checksum"}},
		{"a droplet that is not there", map[string]any{"image": good, "command": "x", "droplet": "http://" + deadAddress(t) + "/d.tar?token=" + canary}, []string{"droplet"}},
		{"a password that a dead registry shall not get", map[string]any{"image": deadAddress(t) + "/team/app:1", "auth": []map[string]any{{"username": "me", "password": canary}}}, []string{"/team/app"}},
		{"a stack that the node does not have", map[string]any{"rootfs": "windows2016", "command": "x"}, []string{`no stack "windows2016"`, "it has gone"}},
		{"a stack whose directory is missing", map[string]any{"rootfs": "gone", "command": "x"}, []string{"stack gone", "/nowhere/at/all"}},
		{"a disk that is full", map[string]any{"image": big}, []string{"team/big", "space"}},
		{"an option that does not exist", map[string]any{"image": good, "privileged": true}, []string{"privileged"}},
		{"two root file systems", map[string]any{"image": good, "rootfs": "gone"}, []string{"image and rootfs"}},
		{"run info that is not there", map[string]any{"run_info": true}, []string{"run_info"}},
	} {
		t.Run(row.promise, func(t *testing.T) {
			job := taskOf("bad-"+strings.ReplaceAll(row.promise, " ", "-"), nomad.JobTypeBatch, row.config)
			alloc := n.start(t, job)
			state := n.await(t, alloc, "dead")
			if !state.Failed {
				t.Errorf("the task did not fail: %s", describe(state))
			}
			failure := event(state, nomad.TaskDriverFailure).Details["driver_error"] + event(state, nomad.TaskFailedValidation).Details["validation_error"]
			for _, want := range row.says {
				if !strings.Contains(failure, want) {
					t.Errorf("the task's events do not say %q: %s", want, describe(state))
				}
			}
			if strings.Contains(describe(state), canary) {
				t.Errorf("the task's events show a secret: %s", describe(state))
			}
			eventually(t, 10*time.Second, "something is left", func() (bool, string) {
				left := n.leftovers()
				return len(left) == 0, strings.Join(left, ", ")
			})
		})
	}
	t.Run("and a good image runs after all of them", func(t *testing.T) {
		alloc := n.start(t, taskOf("good", nomad.JobTypeBatch, map[string]any{"image": good, "args": []string{"exit", "0"}}))
		if state := n.await(t, alloc, "dead"); state.Failed {
			t.Error(describe(state))
		}
	})
}

// deadAddress returns a host:port where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
