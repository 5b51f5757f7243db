//go:build e2e

package driver_test

import (
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"drover/driver"
	"drover/driver/drivertest"
	driverplugin "drover/driver/plugin"
	"drover/e2e/plugin"
)

// everyOption is a config block with all options of a task, as a person writes it.
const everyOption = `
image = "i"
load = "image.tar"
platform = "linux/amd64"
force_pull = true
image_pull_timeout = "1m"
auth {
  username = "u"
  password = "p"
  server_address = "r"
}
rootfs = "stack"
auth_soft_fail = true
entrypoint = ["/e"]
command = "c"
args = ["a", "b"]
work_dir = "/w"
hostname = "h"
init = true
tty = true
interactive = true
labels {
  team = "blue"
}
logging {
  type = "nomad"
  driver = "nomad"
  config {
    rate_limit = "1MiB"
  }
}
cap_add = ["chown"]
cap_drop = ["all"]
privileged = true
no_new_privileges = false
security_opt = ["seccomp=default"]
userns = "auto"
pid_mode = "host"
ipc_mode = "host"
uts_mode = "host"
sysctl = {
  "fs.mqueue.msg_max" = "5"
}
group_add = ["extra"]
readonly_rootfs = true
rootfs_owner = "user"
mount {
  type = "bind"
  target = "/t"
  source = "local/x"
  readonly = true
  bind_options {
    propagation = "rprivate"
  }
}
mount {
  type = "tmpfs"
  target = "/t2"
  tmpfs_options {
    size = 100000
    mode = 511
  }
}
mounts = [
  {
    type = "bind"
    target = "/t3"
    source = "local/y"
    readonly = false
  }
]
volumes = ["local/x:/x"]
tmpfs = ["/tmp"]
devices = [
  {
    host_path = "/dev/fuse"
    container_path = "/dev/fuse"
    cgroup_permissions = "rw"
  }
]
ports = ["http"]
egress {
  protocol = "tcp"
  destinations = ["10.0.0.0/8"]
  ports = ["80"]
  log = true
}
egress {
  protocol = "icmp"
  destinations = ["10.0.0.1"]
  icmp_type = 8
  icmp_code = 0
}
extra_hosts = ["a:192.0.2.1"]
dns_servers = ["192.0.2.53"]
dns_search_domains = ["example"]
dns_options = ["ndots:2"]
pids_limit = 10
cpu_hard_limit = true
cpu_cfs_period = 50000
cpuset_cpus = "0"
memory_hard_limit = 100
shm_size = "8m"
oom_score_adj = 100
ulimit {
  nofile = "1:2"
}
storage_opt = {
  size = "1G"
}
droplet = "https://d"
droplet_checksum = "sha256:00"
run_info = true
`

func TestConfig_forms(t *testing.T) {
	n := plugin.Start(t, plugin.Options{})
	t.Run("4 HCL and JSON", func(t *testing.T) {
		byHand, fromJSON := n.Task(t, everyOption), n.Task(t, "")
		// Nomad's API has the block as a map, whose blocks are lists.
		config, err := plugin.ConfigMap(everyOption)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range driverplugin.TaskOptions() {
			if _, given := config[o.Name]; !given {
				t.Errorf("this test leaves out %s", o.Name)
			}
		}
		for _, name := range []string{"auth", "logging"} { // a person writes a single block as an object
			if blocks, ok := config[name].([]map[string]any); ok && len(blocks) == 1 {
				config[name] = blocks[0]
			}
		}
		if err := fromJSON.SetConfigMap(config); err != nil {
			t.Fatal(err)
		}
		var one, other map[string]any
		if err := byHand.Config.DecodeDriverConfig(&one); err != nil {
			t.Fatal(err)
		}
		if err := fromJSON.Config.DecodeDriverConfig(&other); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(one, other); diff != "" || len(one) < len(driverplugin.TaskOptions()) {
			t.Errorf("%d options; (-HCL +JSON):\n%s", len(one), diff)
		}
	})
}

func TestImages(t *testing.T) {
	n := start(t, plugin.Options{Config: "pull_activity_timeout = \"1s\"\ngc {\n image_delay = \"1s\"\n max_age = \"1s\"\n}"})
	t.Run("10 no byte for too long", func(t *testing.T) {
		contains(t, n.refused(t, `image = "`+stalled(t)+`/stalled:1"`), "pull_activity_timeout")
	})
	t.Run("12 starts, ends and collection at once", func(t *testing.T) { checkRaces(t, n) })
	t.Run("13 what docker save wrote", func(t *testing.T) {
		tag, err := name.NewTag("saved:1")
		if err != nil {
			t.Fatal(err)
		}
		image := drivertest.RootFSImage(t, driver.ImageConfig{Entrypoint: []string{"/bin/probe", "echo", "from an archive"}})
		for _, config := range []string{"load = \"image.tar\"\nimage = \"saved:1\"", `image = "docker-archive:local/image.tar"`} {
			task := n.Task(t, config)
			if err := tarball.WriteToFile(filepath.Join(task.Config.AllocDir, "main/local/image.tar"), tag, image); err != nil {
				t.Fatal(err)
			}
			task.Run(t)
			contains(t, task.Stdout(), "from an archive\n")
		}
	})
}

// stalled is a registry that begins to send a blob and then sends no more.
func stalled(t *testing.T) string {
	t.Helper()
	inner := drivertest.Serve(t)
	drivertest.Push(t, inner, "stalled:1", drivertest.RootFSImage(t, driver.ImageConfig{Env: []string{"STALLED=1"}}))
	front := listener(t)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+inner+r.URL.Path, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := new(http.Client).Do(ask)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = answer.Body.Close() }()
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		buffer := make([]byte, 4096)
		got, _ := answer.Body.Read(buffer)
		_, _ = w.Write(buffer[:got])
		if strings.Contains(r.URL.Path, "/blobs/") {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})}
	go func() { _ = server.Serve(front) }()
	t.Cleanup(func() { _ = server.Close() })
	return front.Addr().String()
}

// checkRaces starts and ends tasks of several images while what is unused is collected all the time. Each must start.
func checkRaces(t *testing.T, n node) {
	t.Helper()
	var refs []string
	for _, mark := range []string{"A", "B", "C"} {
		refs = append(refs, n.push(t, "race-"+strings.ToLower(mark)+":1", driver.ImageConfig{Entrypoint: []string{"/bin/probe", "env", "MARK"}, Env: []string{"MARK=" + mark}}))
	}
	var group sync.WaitGroup
	for worker := range 6 {
		ref, want := refs[worker%3], string(rune('A'+worker%3))+"\n"
		group.Go(func() {
			for until := time.Now().Add(15 * time.Second); time.Now().Before(until); {
				task := n.Task(t, `image = "`+ref+`"`)
				if err := task.TryStart(); err != nil {
					t.Errorf("start: %v", err)
					return
				}
				if exit := task.Wait(t); exit.ExitCode != 0 || task.Stdout() != want {
					t.Errorf("%+v: %q, want %q", exit, task.Stdout(), want)
				}
				n.Remove(t, task)
			}
		})
	}
	group.Wait()
}
