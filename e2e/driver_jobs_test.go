//go:build e2e

package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/stager/bundle"
)

// TestDriver_jobs runs the hand-written examples of jobs/.
func TestDriver_jobs(t *testing.T) {
	stack := shellStack(t)
	droplets := t.TempDir()
	droplet := filepath.Join(droplets, "droplet.tar")
	archive := drivertest.Tar(t, drivertest.File("staging_info.yml", 0o644, `{"start_command":"./start"}`), drivertest.Dir("app", 0o755),
		drivertest.File("app/start", 0o755, "#!/bin/bash\necho $GREETING from $PWD as $(id -un) on port $PORT\nexec sleep 600\n"))
	if err := os.WriteFile(droplet, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	n := startDriverNode(t, 256, fmt.Sprintf(`
    stack "debian" {
      rootfs = %q
    }
    allow_host_paths = [%q]
    lifecycle = %q`, stack, droplets, lifecycle(t)),
		fmt.Sprintf("client {\n  host_volume \"drover-registry\" {\n    path = %q\n  }\n}\n", volume(t)))

	t.Run("image.hcl", func(t *testing.T) {
		ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}, Env: []string{"HELLO=there"}}), "team/web:1")
		port := freePort(t)
		job := parse(t, "image.hcl", "image="+ref, fmt.Sprintf(`args=["listen", "%d"]`, port), "network=host", fmt.Sprintf("port=%d", port))
		n.await(t, n.start(t, job), "running")
		awaitHTTP(t, fmt.Sprintf("http://127.0.0.1:%d/", port), "hello")
	})
	t.Run("droplet.hcl", func(t *testing.T) {
		alloc := n.start(t, parse(t, "droplet.hcl", "droplet="+droplet, "stack=debian"))
		n.await(t, alloc, "running")
		port := alloc.AllocatedResources.Shared.Ports[0].Value
		n.awaitLog(t, alloc, "stdout", fmt.Sprintf("hello from /home/vcap/app as vcap on port %d\n", port))
	})
	t.Run("image.hcl in a network of its own", func(t *testing.T) {
		ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/web:2")
		alloc := n.start(t, parse(t, "image.hcl", "image="+ref, `args=["listen", "8080"]`))
		n.await(t, alloc, "running")
		port := alloc.AllocatedResources.Shared.Ports[0]
		awaitHTTP(t, fmt.Sprintf("http://%s:%d/", port.HostIP, port.Value), "hello")
	})
	t.Run("confined.hcl", func(t *testing.T) {
		ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}), "team/confined:1")
		alloc := n.start(t, parse(t, "confined.hcl", "image="+ref, "user=vcap",
			`args=["then", "--", "id", "--", "write", "/etc/of-the-image", "mine", "--", "stat", "/etc/passwd", "--", "write", "/data/file", "kept", "--", "dial", "198.51.100.1:80"]`))
		state := n.await(t, alloc, "dead")
		if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "1" { // the last of them is against the rules
			t.Errorf("ended with %v\n%s", end, describe(state))
		}
		n.awaitLog(t, alloc, "stdout", " 2000 2000 /etc/passwd")
		n.awaitLog(t, alloc, "stderr", "connection refused")
		if got, err := os.ReadFile(filepath.Join(n.cluster.DataDir(), "alloc", alloc.ID, "main/local/data/file")); string(got) != "kept\n" {
			t.Errorf("its volume has %q, %v", got, err)
		}
	})
	t.Run("registry.hcl", func(t *testing.T) {
		port := freePort(t)
		program, err := os.ReadFile(drivertest.BuildProgram(t, "drover/cmd/drover"))
		if err != nil {
			t.Fatal(err)
		}
		archive := drivertest.Tar(t, drivertest.File("drover", 0o755, string(program)))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive) }))
		t.Cleanup(server.Close)
		job := parse(t, "registry.hcl", "drover="+server.URL+"/drover.tar", "stack=debian", fmt.Sprintf("port=%d", port))
		job.TaskGroups[0].Services[0].Provider = "nomad" // there is no Consul here
		n.await(t, n.start(t, job), "running")
		awaitHTTP(t, fmt.Sprintf("http://127.0.0.1:%d/v2/", port), "{}")
		pushed := drivertest.Push(t, fmt.Sprintf("127.0.0.1:%d", port), "team/probe:1", drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}))
		alloc := n.start(t, taskOf("from-our-registry", nomad.JobTypeBatch, map[string]any{"image": pushed, "args": []string{"echo", "pulled"}}))
		n.await(t, alloc, "dead")
		n.awaitLog(t, alloc, "stdout", "pulled\n")
	})
	t.Run("task.hcl", func(t *testing.T) {
		alloc := n.start(t, parse(t, "task.hcl", "stack=debian"))
		if state := n.await(t, alloc, "dead"); state.Failed {
			t.Error(describe(state))
		}
		n.awaitLog(t, alloc, "stdout", "I am vcap\n")
	})
}

// parse reads an example with variables, as `nomad job run -var` does.
func parse(t *testing.T, name string, vars ...string) *nomad.Job {
	t.Helper()
	path := filepath.Join("..", "jobs", name)
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: path, Body: body, ArgVars: vars, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// volume makes a directory that belongs to containers' vcap.
func volume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chown(dir, driver.VcapID, driver.VcapID); err != nil {
		t.Fatal(err)
	}
	return dir
}

// lifecycle packs drover-lifecycle as Cloud Controller's recipes want it.
func lifecycle(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "buildpack_app_lifecycle.tgz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := bundle.WriteTGZ(file, drivertest.BuildProgram(t, "drover/cmd/drover-lifecycle"), bundle.BuildpackLifecycle()); err != nil {
		t.Fatal(err)
	}
	return path
}

// shellStack makes a small stack with a shell, from this machine's own programs.
func shellStack(t *testing.T) string {
	t.Helper()
	root := drivertest.RootFS(t)[0].Dir
	script := `set -e
for program in bash sleep id; do
  path=$(command -v $program)
  cp --dereference "$path" "$1/bin/"
  ldd "$path" | grep -o '/[^ ]*' | while read -r lib; do mkdir -p "$1$(dirname "$lib")"; cp --dereference "$lib" "$1$lib"; done
done
ln -s bash "$1/bin/sh"`
	if out, err := exec.CommandContext(t.Context(), "/bin/bash", "-c", script, "bash", root).CombinedOutput(); err != nil {
		t.Fatalf("make a stack: %v\n%s", err, out)
	}
	return root
}

// freePort returns a port of the loopback interface where nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	_, port, err := net.SplitHostPort(deadAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func awaitHTTP(t *testing.T, url, want string) {
	t.Helper()
	eventually(t, 20*time.Second, url+" does not answer", func() (bool, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return false, err.Error()
		}
		res, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
		if err != nil {
			return false, err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		return err == nil && strings.Contains(string(body), want), string(body)
	})
}
