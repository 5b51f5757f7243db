//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/e2e/plugin"
)

// TestPlugin_process has jobspecs say how a task's process runs, and looks from inside. The numbers are those of the
// conformance list.
func TestPlugin_process(t *testing.T) {
	n := plugin.Start(t, plugin.Options{Config: `
oom_score_adj = 100
max_pids_limit = 500
extra_labels = ["job_*"]
`})
	image := drivertest.Push(t, n.Registry, "team/process:1", drivertest.RootFSImage(t, driver.ImageConfig{
		Entrypoint: []string{"/bin/probe"}, Cmd: []string{"id"}, User: "vcap", WorkingDir: "/made", StopSignal: "SIGUSR1", Env: []string{"A=image", "B=image"},
	}))
	for _, row := range []struct {
		promise string
		config  string
		change  func(*drivers.TaskConfig)
		want    string
	}{
		{"19 the image's work dir is made", ``, nil, "dir=/made\n"},
		{"19 the job's work dir is made", `work_dir = "/srv/x"`, nil, "dir=/srv/x\n"},
		{"20 the image's user", ``, nil, "uid=2000 gid=2000"},
		{"20 a number and a group", ``, func(c *drivers.TaskConfig) { c.User = "77:88" }, "uid=77 gid=88"},
		{"21 LOGNAME", `args = ["env", "LOGNAME"]`, nil, "vcap\n"},
		{"21 HOME", `args = ["env", "HOME"]`, nil, "/home/vcap\n"},
		{"22 command and args", "command = \"echo\"\nargs = [\"a\", \"b\"]", nil, "a b\n"},
		{"22 an entrypoint drops the command", `entrypoint = ["/bin/probe", "echo", "alone"]`, nil, "alone\n"},
		{"23 the job's environment over the image's", `args = ["env"]`, func(c *drivers.TaskConfig) { c.Env["B"] = "job" }, "A=image\nB=job\n"},
		{"24 the host name", "hostname = \"me\"\nargs = [\"cat\", \"/etc/hostname\"]", nil, "me\n"},
		{"24 extra hosts", "extra_hosts = [\"db:10.1.2.3\"]\nargs = [\"cat\", \"/etc/hosts\"]", nil, "\n10.1.2.3 db\n"},
		{"25 the job's resolvers", "dns_servers = [\"10.9.8.7\"]\ndns_options = [\"ndots:3\"]\nargs = [\"cat\", \"/etc/resolv.conf\"]", nil,
			"nameserver 10.9.8.7\n"},
		{"25 the group's resolvers", `args = ["cat", "/etc/resolv.conf"]`,
			func(c *drivers.TaskConfig) { c.DNS = &drivers.DNSConfig{Servers: []string{"10.5.5.5"}} }, "nameserver 10.5.5.5\n"},
		{"32 a ulimit", "ulimit = [{ fsize = \"1000:2000\" }]\nargs = [\"limit\", \"Max file size\"]", nil, "1000                 2000"},
		{"36 the operator's oom_score_adj", `args = ["cat", "/proc/self/oom_score_adj"]`, nil, "100\n"},
		{"36 the job's oom_score_adj", "oom_score_adj = 200\nargs = [\"cat\", \"/proc/self/oom_score_adj\"]", nil, "200\n"},
		{"init is the parent", "init = true\nargs = [\"status\", \"PPid\"]", nil, "PPid:\t1\n"},
		{"a terminal", "tty = true\nargs = [\"stdin\"]", nil, "terminal"},
		{"a rate limit", "logging {\n config = [{ rate_limit = \"1k\" }]\n}\nargs = [\"flood\", \"64000\"]", nil, "app instance exceeded log rate limit (1024 bytes/sec)"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			task := n.Task(t, fmt.Sprintf("image = %q\n%s", image, row.config))
			if row.change != nil {
				row.change(task.Config)
			}
			if exit := task.Run(t); exit.ExitCode != 0 || !strings.Contains("\n"+task.Stdout(), row.want) {
				t.Errorf("exit %+v, stdout %q, stderr %q, want %q", exit, task.Stdout(), task.Stderr(), row.want)
			}
		})
	}
	for says, row := range map[string]struct {
		config, user string
	}{
		"has no such user":                  {"", "stranger"},
		"pids_limit: 501":                   {"pids_limit = 501", ""},
		"oom_score_adj: 99":                 {"oom_score_adj = 99", ""},
		`ulimit: there is no limit "files"`: {"ulimit = [{ files = \"1\" }]", ""},
		"ulimit nofile: unlimited is more":  {"ulimit = [{ nofile = \"-1\" }]", ""},
		`logging: type "syslog"`:            {"logging {\n type = \"syslog\"\n}", ""},
		`extra_hosts: "db" must be NAME:IP`: {`extra_hosts = ["db"]`, ""},
		"run missing: no such file":         {"init = true\nentrypoint = [\"missing\"]", ""},
	} {
		t.Run("refuses with "+says, func(t *testing.T) {
			task := n.Task(t, fmt.Sprintf("image = %q\n%s", image, row.config), func(c *drivers.TaskConfig) { c.User = row.user })
			if err := task.TryStart(); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("error %v, want one with %q", err, says)
			}
		})
	}
	t.Run("40 stop signals", func(t *testing.T) { checkStopSignals(t, n, image) })
	t.Run("60 labels", func(t *testing.T) {
		task := n.Task(t, fmt.Sprintf("image = %q\nargs = [\"sleep\", \"60\"]\nlabels = [{ team = \"blue\" }]", image))
		task.Config.JobName = "a-job"
		task.Start(t)
		status, err := n.InspectTask(task.Config.ID)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"label.team": "blue", "label.com.hashicorp.nomad.job_name": "a-job"} {
			if got := status.DriverAttributes[name]; got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
}

// checkStopSignals: the job's kill_signal, else the image's STOPSIGNAL, with an init and without.
func checkStopSignals(t *testing.T, n *plugin.Node, image string) {
	t.Helper()
	for _, row := range []struct{ signal, want string }{{"", "SIGUSR1"}, {"SIGINT", "SIGINT"}, {"SIGBANANA", "SIGUSR1"}} {
		for _, init := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s with init %t", row.signal, init), func(t *testing.T) {
				task := n.Task(t, fmt.Sprintf("image = %q\ninit = %t\nargs = [\"trap\"]", image, init))
				task.Start(t)
				eventually(t, time.Minute, "the task to listen", func() (bool, string) { return strings.Contains(task.Stdout(), "ready"), task.Stdout() })
				if err := n.StopTask(task.Config.ID, time.Minute, row.signal); err != nil {
					t.Fatal(err)
				}
				if exit := task.Wait(t); exit.ExitCode != 0 || !strings.Contains(task.Stdout(), "got "+row.want) {
					t.Errorf("exit %+v, stdout %q, want %s", exit, task.Stdout(), row.want)
				}
				if err := n.SignalTask(task.Config.ID, "SIGBANANA"); err == nil {
					t.Error("43 an unknown signal is taken")
				}
			})
		}
	}
}
