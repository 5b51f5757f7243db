package task

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/driver"
	"drover/driver/apparmor"
	"drover/driver/seccomp"
)

func TestSecurityWish(t *testing.T) {
	off, on := false, true
	strict := SecurityConfig{}
	lax := SecurityConfig{AllowPrivileged: true, AllowCaps: []string{"all"}}
	modes := SecurityConfig{Modes: map[string][]string{
		"userns": {"identity"}, "pid": {"host"}, "ipc": {"host"}, "uts": {"host"}, "seccomp": {"custom"}, "apparmor": {"mine"},
	}, SeccompProfiles: []string{"/etc/seccomp"}}
	for _, row := range []struct {
		promise string
		node    SecurityConfig
		wish    SecurityWish
		says    string // empty: allowed
	}{
		{"nothing", strict, SecurityWish{}, ""},
		{"what is the default anyhow", strict, SecurityWish{UserNS: "auto", PIDMode: "private", IPCMode: "private", UTSMode: "private", NoNewPrivileges: &on}, ""},
		{"capabilities of the default set, in any writing", strict, SecurityWish{CapAdd: []string{"chown", "CAP_KILL", "Net_Bind_Service"}}, ""},
		{"all that is allowed", strict, SecurityWish{CapAdd: []string{"ALL"}}, ""},
		{"a capability that is not allowed", strict, SecurityWish{CapAdd: []string{"sys_admin"}}, "cap_add: CAP_SYS_ADMIN is not allowed on this node"},
		{"a capability that there is not", strict, SecurityWish{CapDrop: []string{"fly"}}, `cap_drop: "fly" is not a capability`},
		{"the same in both lists", strict, SecurityWish{CapAdd: []string{"kill"}, CapDrop: []string{"CAP_KILL"}}, "CAP_KILL is in cap_add too"},
		{"any capability where all are allowed", lax, SecurityWish{CapAdd: []string{"sys_admin"}}, ""},
		{"no capability where none is allowed", SecurityConfig{AllowCaps: []string{}}, SecurityWish{CapAdd: []string{"chown"}}, "allow_caps"},

		{"privileged where it is not allowed", strict, SecurityWish{Privileged: true}, "privileged: this node's operator does not allow"},
		{"privileged where it is", lax, SecurityWish{Privileged: true}, ""},
		{"privileged with ids of its own", lax, SecurityWish{Privileged: true, UserNS: "auto"}, "userns"},
		{"new privileges where they are not allowed", strict, SecurityWish{NoNewPrivileges: &off}, "allow_new_privileges"},
		{"new privileges in Docker's form", strict, SecurityWish{SecurityOpt: []string{"no-new-privileges:false"}}, "allow_new_privileges"},
		{"new privileges where they are", SecurityConfig{AllowNewPrivileges: true}, SecurityWish{NoNewPrivileges: &off}, ""},
		{"two opinions", lax, SecurityWish{NoNewPrivileges: &off, SecurityOpt: []string{"no-new-privileges"}}, "says the opposite"},

		{"the host's users", modes, SecurityWish{UserNS: "host"}, `userns: "host" is not allowed on this node; its operator can allow it (plugin option allowed_modes { userns = ["host"] } or allow_privileged)`},
		{"Garden's identity", modes, SecurityWish{UserNS: "identity"}, ""},
		{"an unknown mode", lax, SecurityWish{UserNS: "keep-id"}, `userns: "keep-id" is neither`},
		{"the host's processes", strict, SecurityWish{PIDMode: "host"}, "pid_mode"},
		{"the host's processes, allowed", modes, SecurityWish{PIDMode: "host", IPCMode: "host", UTSMode: "host"}, ""},
		{"the host's shared memory", strict, SecurityWish{IPCMode: "host"}, "ipc_mode"},
		{"the host's name", strict, SecurityWish{UTSMode: "host"}, "uts_mode"},
		{"another container's processes", lax, SecurityWish{PIDMode: "container:x"}, "pid_mode"},

		{"no filter", strict, SecurityWish{SecurityOpt: []string{"seccomp=unconfined"}}, `security_opt seccomp: "unconfined" is not allowed`},
		{"no filter where all is allowed", lax, SecurityWish{SecurityOpt: []string{"seccomp=unconfined"}}, ""},
		{"a profile of its own", strict, SecurityWish{SecurityOpt: []string{"seccomp=local/p.json"}}, `security_opt seccomp: "custom" is not allowed`},
		{"a profile of its own, allowed", modes, SecurityWish{SecurityOpt: []string{"seccomp:local/p.json"}}, ""},
		{"a profile that climbs", modes, SecurityWish{SecurityOpt: []string{"seccomp=../x.json"}}, "below the task's directory"},
		{"a profile of the operator's", modes, SecurityWish{SecurityOpt: []string{"seccomp=/etc/seccomp/a.json"}}, ""},
		{"another path", modes, SecurityWish{SecurityOpt: []string{"seccomp=/etc/seccomp/../shadow"}}, "seccomp_profiles"},
		{"two profiles", modes, SecurityWish{SecurityOpt: []string{"seccomp=local/a", "seccomp=local/b"}}, "twice"},
		{"the default profile", strict, SecurityWish{SecurityOpt: []string{"seccomp=default", "apparmor=drover-default"}}, ""},
		{"no AppArmor", strict, SecurityWish{SecurityOpt: []string{"apparmor=unconfined"}}, "security_opt apparmor"},
		{"a strange AppArmor profile", modes, SecurityWish{SecurityOpt: []string{"apparmor=other"}}, "security_opt apparmor"},
		{"an allowed AppArmor profile", modes, SecurityWish{SecurityOpt: []string{"apparmor=mine"}}, ""},
		{"a label", strict, SecurityWish{SecurityOpt: []string{"label=type:svirt_t", "label=level:s0:c1"}}, ""},
		{"half a label", strict, SecurityWish{SecurityOpt: []string{"label=type"}}, `label "type"`},
		{"an unknown option", strict, SecurityWish{SecurityOpt: []string{"systempaths=unconfined"}}, `"systempaths" is not known`},

		{"values of its own", strict, SecurityWish{Sysctl: map[string]string{"net.core.somaxconn": "1", "kernel/shmmax": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "9", "kernel.shm_rmid_forced": "1"}}, ""},
		{"a value of the host's", strict, SecurityWish{Sysctl: map[string]string{"vm.swappiness": "1"}}, "sysctl vm.swappiness: is the host's"},
		{"a value beside those", strict, SecurityWish{Sysctl: map[string]string{"kernel.msgmax_x": "1"}}, "is the host's"},
		{"a name that climbs", strict, SecurityWish{Sysctl: map[string]string{"net/../kernel/core_pattern": "1"}}, "is not a name"},
		{"a value of two lines", strict, SecurityWish{Sysctl: map[string]string{"net.core.somaxconn": "1\n2"}}, "one line"},
		{"values of a shared namespace", modes, SecurityWish{IPCMode: "host", Sysctl: map[string]string{"kernel.sem": "1"}}, "ipc_mode"},
		{"groups", strict, SecurityWish{GroupAdd: []string{"video", "44"}}, ""},
		{"a strange group", strict, SecurityWish{GroupAdd: []string{"a:b"}}, `group_add: "a:b"`},
	} {
		t.Run(row.promise, func(t *testing.T) {
			node := testNode()
			node.Security = row.node
			if err := node.Validate(); err != nil {
				t.Fatal(err)
			}
			err := Wish{Image: "a", Security: row.wish}.Validate(node)
			switch {
			case row.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("error %v, want one with %q", err, row.says)
			}
		})
	}
}

func TestSecurityConfig_validate(t *testing.T) {
	for says, config := range map[string]SecurityConfig{
		`allow_caps: "fly"`:       {AllowCaps: []string{"fly"}},
		`allowed_modes.pid: "x"`:  {Modes: map[string][]string{"pid": {"x"}}},
		"allowed_modes.userns":    {Modes: map[string][]string{"userns": {"keep-id"}}},
		"name of an AppArmor":     {AppArmor: "a b"},
		"seccomp_profiles: \"x\"": {SeccompProfiles: []string{"x"}},
	} {
		if err := config.validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one with %q", err, says)
		}
	}
}

func TestResolveCaps(t *testing.T) {
	garden := driver.DefaultCapabilities()
	for _, row := range []struct {
		promise   string
		allow     []string
		add, drop []string
		want      driver.Security
	}{
		{"nothing is the default", nil, nil, nil, driver.Security{}},
		{"all are dropped but one", nil, []string{"kill"}, []string{"all"}, driver.Security{CapAdd: []string{"CAP_KILL"}, CapDrop: garden}},
		{"all but one are added", []string{"kill", "bpf"}, []string{"all"}, []string{"bpf"}, driver.Security{
			CapAddAny: []string{"CAP_KILL"}, CapDrop: append([]string{"CAP_BPF"}, without(garden, []string{"CAP_KILL"})...),
		}},
		{"root has no more than is allowed", []string{"kill"}, nil, nil, driver.Security{CapDrop: without(garden, []string{"CAP_KILL"})}},
	} {
		t.Run(row.promise, func(t *testing.T) {
			node := testNode()
			node.Security.AllowCaps = row.allow
			got, err := SecurityWish{CapAdd: row.add, CapDrop: row.drop}.resolve(node)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.CapAdd, row.want.CapAdd) || !slices.Equal(got.CapAddAny, row.want.CapAddAny) || !slices.Equal(got.CapDrop, row.want.CapDrop) {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// A job that says nothing changes nothing in what the shim is told, so that old shims understand it.
func TestApplySecurity_nothing(t *testing.T) {
	c := driver.Container{Seccomp: "default", Hostname: "h"}
	if err := (facts{node: testNode()}).applySecurity(&c); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Seccomp != "default" || c.Hostname != "h" || strings.Contains(string(text), "security") {
		t.Errorf("container is %s", text)
	}
}

func TestApplySecurity(t *testing.T) {
	node := testNode()
	node.Security = SecurityConfig{AllowPrivileged: true}
	f := facts{node: node, nodeName: "node-7", apparmor: "mine", profile: []byte("{}"), ownIP: "192.0.2.1"}
	f.req.Wish.Security = SecurityWish{UTSMode: "host", SecurityOpt: []string{"seccomp=unconfined"}, Sysctl: map[string]string{"net/core/somaxconn": "9"}}
	c := driver.Container{Seccomp: "default", Hostname: "h"}
	if err := f.applySecurity(&c); err != nil {
		t.Fatal(err)
	}
	if c.Seccomp != "off" || c.Hostname != "node-7" || !strings.Contains(c.Hosts, "node-7") || c.Security.AppArmor != "mine" || c.Security.Sysctl["net.core.somaxconn"] != "9" {
		t.Errorf("container is %+v", c)
	}
	f.req.Wish.Security = SecurityWish{Privileged: true}
	c = driver.Container{Seccomp: "default"}
	if err := f.applySecurity(&c); err != nil || c.Seccomp != "off" || !c.Security.NewPrivileges {
		t.Errorf("privileged: %+v, %v", c, err)
	}
}

func TestRequest_checkSecurity(t *testing.T) {
	for says, req := range map[string]Request{
		"hostname: not possible": {Wish: Wish{Hostname: "x", Security: SecurityWish{UTSMode: "host"}}},
		"pid_mode":               {Wish: Wish{RunInfo: true, Security: SecurityWish{PIDMode: "host"}}},
		"network block":          {Wish: Wish{Security: SecurityWish{Sysctl: map[string]string{"net.core.somaxconn": "1"}}}},
	} {
		if err := req.checkSecurity(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one with %q", err, says)
		}
	}
}

func TestSeccompProfile(t *testing.T) {
	alloc, profiles, secret := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "secret.json")
	local := filepath.Join(alloc, "web", "local")
	if err := os.MkdirAll(local, 0o755); err != nil {
		t.Fatal(err)
	}
	good := `{"defaultAction":"SCMP_ACT_ALLOW"}`
	for path, text := range map[string]string{
		filepath.Join(local, "good.json"): good, filepath.Join(local, "bad.json"): "{", filepath.Join(profiles, "web.json"): good, secret: good,
		filepath.Join(local, "big.json"): strings.Repeat(" ", seccomp.MaxSize+1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"out.json": secret, "up.json": "../../../x"} {
		if err := os.Symlink(target, filepath.Join(local, link)); err != nil {
			t.Fatal(err)
		}
	}
	node := testNode()
	node.Security.SeccompProfiles = []string{profiles}
	s := &start{m: &Manager{node: node}, facts: facts{req: Request{AllocDir: alloc, TaskName: "web"}}}
	for _, name := range []string{"local/good.json", filepath.Join(profiles, "web.json")} {
		if text, err := s.seccompProfile(name); err != nil || string(text) != good {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
	for _, name := range []string{"", "default", "unconfined"} {
		if text, err := s.seccompProfile(name); err != nil || text != nil {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
	for _, name := range []string{"local/bad.json", "local/big.json", "local/out.json", "local/up.json", "local/missing.json", "local"} {
		if text, err := s.seccompProfile(name); err == nil {
			t.Errorf("%s is read: %s", name, text)
		}
	}
}

func TestAppArmor_withoutIt(t *testing.T) {
	m := &Manager{node: testNode(), apparmor: apparmor.Host{Root: t.TempDir()}}
	if got, err := m.appArmor(t.Context(), "", false); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := m.appArmor(t.Context(), "mine", false); err == nil || !strings.Contains(err.Error(), "no AppArmor") {
		t.Errorf("error is %v", err)
	}
	if got, err := m.appArmor(t.Context(), "unconfined", false); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAppArmor(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"sys/module/apparmor/parameters/enabled": "Y\n", "sys/kernel/security/apparmor/profiles": "mine (enforce)\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := New(t.Context(), testNode(), nil, slog.New(slog.DiscardHandler))
	m.apparmor = apparmor.Host{Root: root, Parser: "/nonexistent"}
	if got, err := m.appArmor(t.Context(), "", false); got != "" || err != nil {
		t.Errorf("without a parser: %q, %v", got, err)
	}
	if loaded, err := m.AppArmor(t.Context()); loaded || err == nil {
		t.Errorf("the node's health does not say that there is no profile: %v, %v", loaded, err)
	}
	if _, err := m.appArmor(t.Context(), apparmor.Profile, false); err == nil {
		t.Error("a job that asks for the profile starts without it")
	}
	if got, err := m.appArmor(t.Context(), "mine", true); got != "mine" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := m.appArmor(t.Context(), "other", false); err == nil || !strings.Contains(err.Error(), `no profile "other"`) {
		t.Errorf("error is %v", err)
	}
	m.node.Security.AppArmor = "mine"
	if loaded, err := m.AppArmor(t.Context()); !loaded || err != nil {
		t.Errorf("the operator's profile: %v, %v", loaded, err)
	}
}
