package probe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func good() Facts {
	return Facts{
		Enabled: true, Root: true, Kernel: "6.1.0-18-amd64", Cgroup: "v2", MaxUserNamespaces: 9, Seccomp: true,
		Shim: "/opt/drover-shim", ShimVersion: "1.2", Version: "1.2", Stacks: []string{"cflinuxfs4"},
	}
}

func TestJudge(t *testing.T) {
	for _, row := range []struct {
		promise string
		change  func(*Facts)
		health  Health
		says    string
	}{
		{"is healthy when all is there", func(*Facts) {}, Healthy, "Healthy"},
		{"is undetected without root", func(f *Facts) { f.Root = false }, Undetected, "as root"},
		{"is undetected when disabled", func(f *Facts) { f.Enabled = false }, Undetected, "option enabled"},
		{"names a shim that does not run", func(f *Facts) { f.ShimError = "/x version: exec format error" }, Unhealthy, "/x version"},
		{"names missing controllers", func(f *Facts) { f.MissingControllers = []string{"memory", "pids"} }, Unhealthy, "memory, pids"},
		{"names missing cgroups", func(f *Facts) { f.Cgroup = "" }, Unhealthy, "no cgroups"},
		{"names the sysctl that forbids user namespaces", func(f *Facts) { f.MaxUserNamespaces = 0 }, Unhealthy, "user.max_user_namespaces"},
		{"names a kernel that is too old", func(f *Facts) { f.Kernel = "5.15.0" }, Unhealthy, "kernel 5.15.0"},
		{"is healthy without a stack, and names it", func(f *Facts) { f.MissingStacks = []string{"stack x: no /x"} }, Healthy, "Healthy; stack x: no /x"},
		{"names every cause at once", func(f *Facts) { f.Cgroup, f.MaxUserNamespaces = "", 0 }, Unhealthy, "no cgroups are mounted on /sys/fs/cgroup; user"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			facts := good()
			row.change(&facts)
			got := Judge(facts)
			if got.Health != row.health || !strings.Contains(got.Description, row.says) {
				t.Errorf("got %s %q, want %s with %q", got.Health, got.Description, row.health, row.says)
			}
		})
	}
}

func TestJudge_attributes(t *testing.T) {
	want := map[string]string{
		"driver.drover": "1", "driver.drover.version": "1.2", "driver.drover.kernel": "6.1.0-18-amd64", "driver.drover.cgroup": "v2",
		"driver.drover.userns": "1", "driver.drover.idmap": "1", "driver.drover.seccomp": "1", "driver.drover.shim": "1.2",
		"driver.drover.stack.cflinuxfs4": "1", "driver.drover.quota": "0", "driver.drover.apparmor": "0",
	}
	if diff := cmp.Diff(want, Judge(good()).Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestIDMappedLayers(t *testing.T) {
	for release, want := range map[string]bool{
		"5.18.19": false, "5.19.0": true, "5.19-rc1": true, "6.0": true, "4.19.0-amd64": false, "10.1.2+": true, "strange": true,
	} {
		if got := idMappedLayers(release); got != want {
			t.Errorf("%s: got %v, want %v", release, got, want)
		}
	}
}

func TestCgroups(t *testing.T) {
	write := func(t *testing.T, root string, names ...string) {
		t.Helper()
		for _, name := range names {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("cpu cpuset memory pids io\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("finds v2", func(t *testing.T) {
		root := t.TempDir()
		write(t, root, "cgroup.controllers")
		if version, missing := cgroups(root); version != "v2" || len(missing) > 0 {
			t.Errorf("got %s, missing %v", version, missing)
		}
	})
	t.Run("names what v1 lacks", func(t *testing.T) {
		root := t.TempDir()
		write(t, root, "cpu/cgroup.procs", "cpuset/cgroup.procs", "devices/cgroup.procs", "freezer/cgroup.procs", "memory/cgroup.procs")
		if version, missing := cgroups(root); version != "v1" || !cmp.Equal(missing, []string{"pids"}) {
			t.Errorf("got %s, missing %v", version, missing)
		}
	})
	t.Run("finds nothing", func(t *testing.T) {
		if version, missing := cgroups(t.TempDir()); version != "" || missing != nil {
			t.Errorf("got %q, missing %v", version, missing)
		}
	})
}

func TestShimVersion_namesTheOption(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "absent")} {
		if _, err := shimVersion(t.Context(), path); err == nil || !strings.Contains(err.Error(), "plugin option shim") {
			t.Errorf("%q: error %v does not name the option", path, err)
		}
	}
}
