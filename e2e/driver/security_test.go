//go:build e2e

package driver_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"
	"golang.org/x/sys/unix"

	"drover/e2e/plugin"
)

func TestSecurity_refusals(t *testing.T) {
	n := start(t, plugin.Options{})
	for config, says := range map[string]string{
		`privileged = true`:                              "allow_privileged",
		`cap_add = ["sys_admin"]`:                        "cap_add: CAP_SYS_ADMIN is not allowed on this node",
		`no_new_privileges = false`:                      "allow_new_privileges",
		`security_opt = ["no-new-privileges=false"]`:     "allow_new_privileges",
		`security_opt = ["seccomp=unconfined"]`:          `seccomp = ["unconfined"]`,
		`security_opt = ["seccomp=local/profile.json"]`:  `seccomp = ["custom"]`,
		`security_opt = ["apparmor=docker-default"]`:     `apparmor = ["docker-default"]`,
		`userns = "host"`:                                `userns = ["host"]`,
		`userns = "identity"`:                            `userns = ["identity"]`,
		`pid_mode = "host"`:                              `pid = ["host"]`,
		`ipc_mode = "host"`:                              `ipc = ["host"]`,
		`uts_mode = "host"`:                              `uts = ["host"]`,
		`sysctl = [{ "kernel.core_pattern" = "|/x" }]`:   "sysctl kernel.core_pattern: is the host's",
		`sysctl = [{ "net.core.somaxconn" = "1" }]`:      "network block",
		`cap_drop = ["fly"]`:                             `"fly" is not a capability`,
		`security_opt = ["label=type:x"]`:                "no SELinux",
		"pid_mode = \"container:x\"\nipc_mode = \"all\"": "ipc_mode",
	} {
		t.Run("7 "+config, func(t *testing.T) { contains(t, n.refused(t, n.probe(config, "echo")), says) })
	}
}

func TestSecurity_capabilities(t *testing.T) {
	n := start(t, plugin.Options{Config: `allow_caps = ["chown", "kill", "CAP_NET_ADMIN"]`})
	for _, row := range []struct {
		promise, user, options string
		want                   uint64
	}{
		{"26 root has those of the default set that are allowed", "root", "", 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL},
		{"26 others have none", "vcap", "", 0},
		{"26 added", "vcap", `cap_add = ["Net_Admin"]`, 1 << unix.CAP_NET_ADMIN},
		{"26 dropped", "root", `cap_drop = ["CAP_CHOWN"]`, 1 << unix.CAP_KILL},
		{"26 ALL added", "vcap", `cap_add = ["ALL"]`, 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_ADMIN},
		{"26 ALL dropped, and one added", "root", "cap_drop = [\"all\"]\ncap_add = [\"net_admin\"]", 1 << unix.CAP_NET_ADMIN},
	} {
		t.Run(row.promise, func(t *testing.T) {
			text := n.output(t, n.probe(row.options, "status", "CapEff"), as(row.user))
			if got, err := strconv.ParseUint(strings.Fields(text)[1], 16, 64); err != nil || got != row.want {
				t.Errorf("capabilities are %x, want %x, %v", got, row.want, err)
			}
		})
	}
	t.Run("26 not allowed", func(t *testing.T) {
		contains(t, n.refused(t, n.probe(`cap_add = ["net_raw"]`, "echo")), "CAP_NET_RAW is not allowed on this node; allowed are CAP_CHOWN, CAP_KILL, CAP_NET_ADMIN")
	})
}

func TestSecurity_namespaces(t *testing.T) {
	n := start(t, plugin.Options{Config: "allowed_modes {\n  pid = [\"host\"]\n  ipc = [\"host\"]\n  uts = [\"host\"]\n  userns = [\"host\"]\n}"})
	for _, kind := range []string{"pid", "ipc", "uts"} {
		host, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		for mode, shared := range map[string]bool{"private": false, "host": true, "": false} {
			t.Run("27 "+kind+" "+mode, func(t *testing.T) {
				options := ""
				if mode != "" {
					options = kind + "_mode = " + strconv.Quote(mode)
				}
				text := n.output(t, n.probe(options, "readlink", "/proc/self/ns/"+kind))
				if got := strings.TrimSpace(text) == host; got != shared {
					t.Errorf("the host's namespace: %v", got)
				}
			})
		}
	}
	t.Run("27 the host's users", func(t *testing.T) {
		contains(t, n.output(t, n.probe(`userns = "host"`, "cat", "/proc/self/uid_map")), " 4294967295\n")
	})
}

func TestSecurity_values(t *testing.T) {
	n := start(t, plugin.Options{Config: "allowed_modes {\n  seccomp = [\"custom\"]\n}"})
	t.Run("32 sysctl", func(t *testing.T) {
		text := n.output(t, n.probe(`sysctl = [{ "kernel.shmmni" = "77", "fs.mqueue.msg_max" = "12" }]`, "cat", "/proc/sys/kernel/shmmni", "/proc/sys/fs/mqueue/msg_max"))
		if text != "77\n12\n" {
			t.Errorf("the values are %q", text)
		}
	})
	t.Run("32 a value that the kernel refuses", func(t *testing.T) {
		contains(t, n.refused(t, n.probe(`sysctl = [{ "kernel.shmmni" = "many" }]`, "echo")), "sysctl kernel.shmmni", "many")
	})
	t.Run("7 a profile that a template has made", func(t *testing.T) {
		task := n.Task(t, n.probe(`security_opt = ["seccomp=local/p.json"]`, "call", strconv.Itoa(unix.SYS_GETPPID)), func(*drivers.TaskConfig) {})
		profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}`
		if err := os.WriteFile(filepath.Join(task.Config.AllocDir, "main/local/p.json"), []byte(profile), 0o600); err != nil {
			t.Fatal(err)
		}
		if exit := task.Run(t); exit.ExitCode != 1 {
			t.Errorf("the call is allowed: %+v", exit)
		}
		contains(t, task.Stderr(), "function not implemented")
	})
	t.Run("20 further groups", func(t *testing.T) {
		contains(t, n.output(t, n.probe(`group_add = ["nogroup", "4242"]`, "id")), "65534", "4242")
	})
}
