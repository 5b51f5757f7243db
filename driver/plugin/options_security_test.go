package plugin

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/driver/task"
)

func TestConfig_security(t *testing.T) {
	var c config
	parse(t, configSpec(), `
allow_privileged = true
allow_caps = ["net_admin"]
allow_new_privileges = true
seccomp_profiles = ["/etc/seccomp"]
apparmor = "off"
allowed_modes {
  userns = ["host", "identity"]
  pid = ["host"]
  ipc = ["host"]
  uts = ["host"]
  seccomp = ["custom"]
  apparmor = ["mine"]
}`, &c)
	got, err := c.node()
	if err != nil {
		t.Fatal(err)
	}
	want := task.SecurityConfig{
		AllowPrivileged: true, AllowCaps: []string{"net_admin"}, AllowNewPrivileges: true, SeccompProfiles: []string{"/etc/seccomp"}, AppArmor: "off",
		Modes: map[string][]string{
			"userns": {"host", "identity"}, "pid": {"host"}, "ipc": {"host"}, "uts": {"host"}, "seccomp": {"custom"}, "apparmor": {"mine"},
		},
	}
	if diff := cmp.Diff(want, got.Security); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTaskConfig_security(t *testing.T) {
	var c taskConfig
	parse(t, taskConfigSpec(), `
cap_add = ["net_admin"]
cap_drop = ["ALL"]
privileged = true
no_new_privileges = false
security_opt = ["seccomp=unconfined"]
userns = "host"
pid_mode = "host"
ipc_mode = "host"
uts_mode = "host"
sysctl = [{
  "net.core.somaxconn" = "4096"
}]
group_add = ["video"]`, &c)
	got, err := c.wish("vcap")
	if err != nil {
		t.Fatal(err)
	}
	off := false
	want := task.SecurityWish{
		CapAdd: []string{"net_admin"}, CapDrop: []string{"ALL"}, Privileged: true, NoNewPrivileges: &off, SecurityOpt: []string{"seccomp=unconfined"},
		UserNS: "host", PIDMode: "host", IPCMode: "host", UTSMode: "host", Sysctl: map[string]string{"net.core.somaxconn": "4096"}, GroupAdd: []string{"video"},
	}
	if diff := cmp.Diff(want, got.Security); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An empty list of capabilities is none, and no list is the default set.
func TestConfig_noCapabilities(t *testing.T) {
	for body, want := range map[string]bool{"allow_caps = []": false, "": true} {
		var c config
		parse(t, configSpec(), body, &c)
		if got := c.AllowCaps == nil; got != want {
			t.Errorf("%q: the default set: %v", body, got)
		}
	}
}

func TestTaskConfig_noNewPrivileges(t *testing.T) {
	for body, want := range map[string]string{"": "unsaid", "no_new_privileges = true": "true", "no_new_privileges = false": "false"} {
		var c taskConfig
		parse(t, taskConfigSpec(), body, &c)
		got := "unsaid"
		if c.NoNewPrivileges != nil {
			got = map[bool]string{true: "true", false: "false"}[*c.NoNewPrivileges]
		}
		if got != want {
			t.Errorf("%q: %s", body, got)
		}
	}
}
