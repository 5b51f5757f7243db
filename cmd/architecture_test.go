// Package cmd_test keeps the promises that the documents make: which packages there are, what each may import, that
// each explains itself (ARCHITECTURE.md), and which routes and fields are served (COMPATIBILITY.md).
package cmd_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows lists every package of the module with the packages of ours that it may import. Tests may import more.
// Across components only roots are imported; cmd and e2e wire.
var arrows = map[string][]string{
	"bridge":            {},
	"bridge/assets":     {},
	"bridge/bbs":        {"bridge"},
	"bridge/bridgetest": {"bridge"},
	"bridge/cc":         {"bridge"},
	"bridge/mtls":       {},
	"bridge/nomad":      {"bridge", "bridge/translate", "driver"},
	"bridge/notify":     {"bridge", "bridge/cc"},
	"bridge/translate":  {"bridge", "driver"},

	"driver":                  {},
	"driver/action":           {"driver"},
	"driver/apparmor":         {},
	"driver/bundle":           {"driver", "driver/seccomp"},
	"driver/cgroup":           {"driver"},
	"driver/drivertest":       {"driver"},
	"driver/drivertest/probe": {},
	"driver/egress":           {"driver"},
	"driver/cdi":              {"driver"},
	"driver/image":            {"driver", "driver/unpack"},
	"driver/login":            {},
	"driver/plugin":           {"driver", "driver/egress", "driver/image", "driver/login", "driver/probe", "driver/selftest", "driver/shim", "driver/task"},
	"driver/probe":            {"driver"},
	"driver/quota":            {"driver"},
	"driver/rootfs":           {"driver"},
	"driver/seccomp":          {},
	"driver/runc":             {"driver", "driver/bundle", "driver/cgroup"},
	"driver/selftest":         {"driver", "driver/shim"},
	"driver/shim":             {"driver", "driver/cgroup", "driver/egress", "driver/quota"},
	"driver/task":             {"driver", "driver/apparmor", "driver/cdi", "driver/egress", "driver/image", "driver/login", "driver/quota", "driver/seccomp", "driver/shim"},
	"driver/shim/keeper":      {"driver", "driver/action", "driver/bundle", "driver/cgroup", "driver/egress", "driver/quota", "driver/rootfs", "driver/runc", "driver/shim", "driver/unpack"},
	"driver/unpack":           {"driver"},

	"registry":        {},
	"registry/server": {"registry"},

	"stager":           {},
	"stager/build":     {"stager", "stager/buildpack", "stager/droplet", "stager/vcap"},
	"stager/buildpack": {"stager/trust"},
	"stager/bundle":    {"stager"},
	"stager/check":     {},
	"stager/docker":    {"stager"},
	"stager/droplet":   {},
	"stager/launch":    {"stager", "stager/vcap"},
	"stager/trust":     {},
	"stager/vcap":      {"stager"},
}

// packageInfo is what go list says of a package.
type packageInfo struct {
	ImportPath, Doc string
	Imports         []string
}

func listPackages(t *testing.T) []packageInfo {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,Imports", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []packageInfo
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p packageInfo
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func TestArchitecture(t *testing.T) {
	document, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, "drover/")
		if p.Doc == "" && len(p.Imports) > 0 {
			t.Errorf("%s has no package comment", name)
		}
		if !strings.Contains(string(document), "`"+name+"`") {
			t.Errorf("ARCHITECTURE.md does not name `%s`", name)
		}
		if strings.HasPrefix(name, "cmd") || strings.HasPrefix(name, "e2e") || name == "jobs" {
			continue
		}
		seen[name] = true
		checkArrows(t, name, p.Imports)
	}
	for name := range arrows {
		if !seen[name] {
			t.Errorf("%s is listed, but there is no such package", name)
		}
	}
}

func checkArrows(t *testing.T, name string, imports []string) {
	t.Helper()
	allowed, known := arrows[name]
	if !known {
		t.Errorf("%s is not in the list of packages: add it there and to ARCHITECTURE.md", name)
		return
	}
	for _, path := range imports {
		if ours, is := strings.CutPrefix(path, "drover/"); is && !slices.Contains(allowed, ours) {
			t.Errorf("%s imports %s, which its list does not allow", name, ours)
		}
	}
}

// TestArchitecture_topLevel allows the components, dotfiles and the customary documents, and nothing else.
func TestArchitecture_topLevel(t *testing.T) {
	allowed := strings.Fields(`driver bridge stager registry cmd jobs e2e go.mod go.sum GNUmakefile README.md
		LICENSE CHANGELOG.md CONTRIBUTING.md ARCHITECTURE.md DECISIONS.md COMPATIBILITY.md SECURITY.md bin build`)
	entries, err := filepath.Glob("../*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range entries {
		name := filepath.Base(path)
		if !strings.HasPrefix(name, ".") && !slices.Contains(allowed, name) {
			t.Errorf("top level holds %s, which is not part of the layout", name)
		}
	}
}
