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
		Enabled: true, Root: true, Kernel: "6.1.0-18-amd64", Cgroup: "v2", MaxUserNamespaces: 9, Trial: &Trial{UserNS: true, IDMap: true, Seccomp: true}, Quota: "measured", QuotaDefault: "10G",
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
		{"is unhealthy before a container has run", func(f *Facts) { f.Trial = nil }, Unhealthy, "self-test is running"},
		{"is unhealthy when no container runs", func(f *Facts) { f.Trial = &Trial{Error: "no such luck"} }, Unhealthy, "the self-test failed: no such luck"},
		{"is healthy without a stack, and names it", func(f *Facts) { f.MissingStacks = []string{"stack x: no /x"} }, Healthy, "Healthy; stack x: no /x"},
		{"names every cause at once", func(f *Facts) { f.Cgroup, f.MaxUserNamespaces = "", 0 }, Unhealthy, "systemd; user namespaces"},
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

func TestJudge_tellsWhatAContainerHas(t *testing.T) {
	facts := good()
	facts.Trial = &Trial{UserNS: true, Error: "its layer's ids are not mapped"}
	a := Judge(facts).Attributes
	if a["driver.drover.userns"] != "1" || a["driver.drover.idmap"] != "0" || a["driver.drover.seccomp"] != "0" {
		t.Errorf("attributes %v", a)
	}
}

func TestJudge_tellsOfTheStoreInBroadStrokes(t *testing.T) {
	facts := good()
	facts.Store = &Store{Layers: 7, MB: 99, FreeMB: 123456}
	a := Judge(facts).Attributes
	if a["unique.driver.drover.store.layers"] != "7" || a["unique.driver.drover.store.mb"] != "99" || a["unique.driver.drover.store.free_mb"] != "120000" {
		t.Errorf("attributes %v", a)
	}
}

func TestGather_asksTheShimOnceForEachFile(t *testing.T) {
	dir := t.TempDir()
	shim := filepath.Join(dir, "shim")
	write := func(version string) {
		t.Helper()
		script := "#!/bin/sh\necho asked >>" + dir + "/asked\necho " + version + "\n"
		if err := os.WriteFile(shim+".new", []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(shim+".new", shim); err != nil {
			t.Fatal(err)
		}
	}
	var p Prober
	for _, version := range []string{"1.0", "2.0"} {
		write(version)
		for range 3 {
			if f := p.Gather(t.Context(), shim); f.ShimVersion != version || f.ShimError != "" || f.ShimFile == "" {
				t.Fatalf("version %q, error %q, file %q, want %s", f.ShimVersion, f.ShimError, f.ShimFile, version)
			}
		}
	}
	if asked, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || strings.Count(string(asked), "asked") != 2 {
		t.Errorf("the shim was asked %d times (%v), want 2", strings.Count(string(asked), "asked"), err)
	}
}

func TestJudge_attributes(t *testing.T) {
	want := map[string]string{
		"driver.drover": "1", "driver.drover.version": "1.2", "driver.drover.kernel": "6.1.0-18-amd64", "driver.drover.cgroup": "v2",
		"driver.drover.userns": "1", "driver.drover.idmap": "1", "driver.drover.seccomp": "1", "driver.drover.shim": "1.2",
		"driver.drover.stack.cflinuxfs4": "1", "driver.drover.quota": "measured", "driver.drover.quota.default": "10G", "driver.drover.apparmor": "0", "driver.drover.privileged.enabled": "0",
	}
	if diff := cmp.Diff(want, Judge(good()).Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
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
		if _, _, err := (&shimFile{}).look(t.Context(), path); err == nil || !strings.Contains(err.Error(), "plugin option shim") {
			t.Errorf("%q: error %v does not name the option", path, err)
		}
	}
}
