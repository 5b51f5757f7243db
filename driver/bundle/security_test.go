package bundle

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

func TestCapabilities(t *testing.T) {
	host := append(gardenCapabilities(), "CAP_SYS_ADMIN", "CAP_NET_ADMIN")
	garden := strings.Join(gardenCapabilities(), " ")
	root, vcap := User{}, User{UID: 2000}
	for _, test := range []struct {
		promise                      string
		user                         User
		security                     driver.Security
		bounding, effective, ambient string
	}{
		{"root has Garden's", root, driver.Security{}, garden, garden, ""},
		{"others have none", vcap, driver.Security{}, "", "", ""},
		{"root has what is added", root, driver.Security{CapAdd: []string{"CAP_NET_ADMIN"}}, garden + " CAP_NET_ADMIN", garden + " CAP_NET_ADMIN", ""},
		{"others can use what is added", vcap, driver.Security{CapAdd: []string{"CAP_NET_ADMIN"}}, "CAP_NET_ADMIN", "CAP_NET_ADMIN", "CAP_NET_ADMIN"},
		{
			"all but one are dropped", root,
			driver.Security{CapAdd: []string{"CAP_CHOWN"}, CapDrop: gardenCapabilities()}, "CAP_CHOWN", "CAP_CHOWN", "",
		},
		{"what the host has not is left out of all", vcap, driver.Security{CapAddAny: []string{"CAP_SYS_BOOT", "CAP_KILL"}}, "CAP_KILL", "CAP_KILL", "CAP_KILL"},
		{"files may grant root's to others", vcap, driver.Security{NewPrivileges: true}, garden, "", ""},
		{"a privileged root has all but what it drops", root, driver.Security{Privileged: true, CapDrop: []string{"CAP_NET_ADMIN"}}, garden + " CAP_SYS_ADMIN", garden + " CAP_SYS_ADMIN", ""},
		{"files may grant all to a privileged container's others", vcap, driver.Security{Privileged: true}, strings.Join(host, " "), "", ""},
	} {
		t.Run(test.promise, func(t *testing.T) {
			got, err := capabilities(test.user, test.security, host)
			if err != nil {
				t.Fatal(err)
			}
			for _, set := range []struct {
				name, want string
				got        []string
			}{
				{"bounding", test.bounding, got.Bounding}, {"effective", test.effective, got.Effective}, {"permitted", test.effective, got.Permitted},
				{"inheritable", test.ambient, got.Inheritable}, {"ambient", test.ambient, got.Ambient},
			} {
				if strings.Join(set.got, " ") != set.want {
					t.Errorf("%s set is %v, want %s", set.name, set.got, set.want)
				}
			}
		})
	}
}

func TestCapabilities_areNoMoreThanTheHosts(t *testing.T) {
	got, err := capabilities(User{}, driver.Security{}, []string{"CAP_CHOWN", "CAP_SYS_ADMIN"})
	if err != nil || !slices.Equal(got.Bounding, []string{"CAP_CHOWN"}) {
		t.Errorf("bounding set is %+v, %v", got, err)
	}
	_, err = capabilities(User{}, driver.Security{CapAdd: []string{"CAP_BPF"}}, []string{"CAP_CHOWN"})
	if err == nil || !strings.Contains(err.Error(), "cap_add: CAP_BPF") {
		t.Errorf("error is %v", err)
	}
}

func TestSpec_security(t *testing.T) {
	for name, change := range map[string]func(*driver.Container, *Facts){
		"security-privileged": func(c *driver.Container, f *Facts) {
			c.IDs, c.Security, c.Seccomp = driver.IDRange{}, driver.Security{Privileged: true, NewPrivileges: true}, "off"
			f.User, f.Devices = User{Name: "root", Home: "/root"}, []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
		},
		"security-host-namespaces": func(c *driver.Container, f *Facts) {
			c.Security = driver.Security{HostPID: true, HostIPC: true, HostUTS: true}
			f.Queues = "/state/mqueue"
		},
		"security-identity": func(c *driver.Container, _ *Facts) {
			c.IDs = driver.IDRange{Host: 4294967294, Size: 65536, Identity: true}
		},
		"security-labels": func(c *driver.Container, f *Facts) {
			c.Security = driver.Security{AppArmor: "drover-default", CapAdd: []string{"CAP_KILL"}}
			f.ProcessLabel, f.MountLabel, f.Throttles = "u:r:t:s0", "u:r:f:s0", []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := wish(), facts()
			change(&c, &f)
			spec, err := Spec(c, f)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Linux.Seccomp != nil {
				spec.Linux.Seccomp.Syscalls = nil
			}
			golden(t, name+".json", spec)
		})
	}
}

func TestSpec_privilegedNeedsTheHostsIDs(t *testing.T) {
	c, f := wish(), facts()
	c.Security.Privileged = true
	if _, err := Spec(c, f); err == nil || !strings.Contains(err.Error(), "privileged") {
		t.Errorf("error is %v", err)
	}
}

func TestSpec_profile(t *testing.T) {
	c, f := wish(), facts()
	f.Kernel = "6.1.0"
	c.Security.Profile = []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`)
	spec, err := Spec(c, f)
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Linux.Seccomp; got.DefaultAction != specs.ActAllow || len(got.Syscalls) != 1 || got.Syscalls[0].Names[0] != "mkdir" {
		t.Errorf("seccomp is %+v", got)
	}
	c.Security.Profile = []byte(`{}`)
	if _, err := Spec(c, f); err == nil || !strings.Contains(err.Error(), "seccomp profile: defaultAction") {
		t.Errorf("error is %v", err)
	}
}

// Nothing that a capability is for may be there without it.
func TestSeccomp_capabilityCalls(t *testing.T) {
	for _, call := range capabilityCalls([]string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_RAWIO", "CAP_SYS_TIME"}) {
		if allowedOn(t, "amd64")[call] > 0 {
			t.Errorf("%s is allowed without its capability", call)
		}
	}
	if calls := capabilityCalls(gardenCapabilities()); len(calls) > 0 {
		t.Errorf("Garden's capabilities allow %v", calls)
	}
}
