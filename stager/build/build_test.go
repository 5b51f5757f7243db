package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/stager"
	"drover/stager/build"
	"drover/stager/buildpack"
)

// stage is one staging in temporary directories, with the buildpacks of testdata named by key.
type stage struct {
	cfg build.Config
	env []string
	out string
	err error
}

func newStage(t *testing.T, skipDetect bool, order ...string) *stage {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir) // For the droplet's contents.
	s := &stage{env: []string{"PATH=" + os.Getenv("PATH")}, cfg: build.Config{
		BuildDir:       filepath.Join(dir, "app"),
		BuildpacksDir:  filepath.Join(dir, "buildpacks"),
		DownloadDir:    filepath.Join(dir, "downloads"),
		CacheDir:       filepath.Join(dir, "cache"),
		OutputDroplet:  filepath.Join(dir, "droplet"),
		OutputCache:    filepath.Join(dir, "output-cache"),
		OutputMetadata: filepath.Join(dir, "result.json"),
		Order:          order, SkipDetect: skipDetect,
	}}
	for _, key := range order {
		fixture, err := filepath.Abs(filepath.Join("testdata", "buildpacks", key))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(fixture); err != nil {
			continue // The promise is about a missing one.
		}
		mkdir(t, s.cfg.BuildpacksDir)
		if err := os.Symlink(fixture, filepath.Join(s.cfg.BuildpacksDir, buildpack.DirName(key))); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "app.txt", "an app\n")
	return s
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// write puts a file into the app.
func (s *stage) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(s.cfg.BuildDir, name)
	mkdir(t, filepath.Dir(file))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) run(t *testing.T) *stage {
	t.Helper()
	var out bytes.Buffer
	s.err = build.Run(t.Context(), s.cfg, s.env, &out, &out)
	s.out = out.String()
	return s
}

// mustRun fails the test when staging fails.
func (s *stage) mustRun(t *testing.T) *stage {
	t.Helper()
	if s.run(t); s.err != nil {
		t.Fatalf("staging failed: %v\n%s", s.err, s.out)
	}
	return s
}

func (s *stage) result(t *testing.T) stager.BuildpackResult {
	t.Helper()
	text, err := os.ReadFile(s.cfg.OutputMetadata)
	if err != nil {
		t.Fatal(err)
	}
	var result stager.BuildpackResult
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&result); err != nil {
		t.Fatalf("result.json: %v\n%s", err, text)
	}
	return result
}

// entries reads an archive: names to content, links as "-> target".
func entries(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // Only read.
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for tr := tar.NewReader(zr); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 2000 || header.Gid != 2000 {
			t.Errorf("%s belongs to %d:%d, want vcap", header.Name, header.Uid, header.Gid)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[header.Name] = string(text)
		if header.Typeflag == tar.TypeSymlink {
			out[header.Name] = "-> " + header.Linkname
		}
	}
}

func names(entries map[string]string) []string {
	var out []string
	for name := range entries {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func TestRun_exitCodes(t *testing.T) {
	for _, row := range []struct {
		promise    string
		skipDetect bool
		order      []string
		code       stager.ExitCode
		says       string
	}{
		{"none detects", false, []string{"never"}, stager.ExitDetectFailed, "None of the buildpacks detected"},
		{"a missing buildpack is skipped", false, []string{"missing"}, stager.ExitDetectFailed, "None of the buildpacks detected"},
		{"a buildpack without detect is skipped", false, []string{"supplier"}, stager.ExitDetectFailed, "None of the buildpacks detected"},
		{"compile fails", false, []string{"compile-fails"}, stager.ExitCompileFailed, "exit status 3"},
		{"finalize fails", true, []string{"finalize-fails"}, stager.ExitCompileFailed, "bin/finalize"},
		{"the final buildpack's supply fails", true, []string{"final-supply-fails"}, stager.ExitCompileFailed, "bin/supply"},
		{"the final buildpack is missing", true, []string{"missing"}, stager.ExitCompileFailed, "not found"},
		{"release fails", false, []string{"release-fails"}, stager.ExitReleaseFailed, "bin/release"},
		{"release prints no YAML", false, []string{"release-garbage"}, stager.ExitReleaseFailed, "no valid YAML"},
		{"supply fails", true, []string{"supply-fails", "whole"}, stager.ExitSupplyFailed, "exit status 7"},
		{"a buildpack before the last cannot supply", true, []string{"old", "whole"}, stager.ExitSupplyFailed, "no bin/supply"},
		{"a buildpack before the last is missing", true, []string{"missing", "whole"}, stager.ExitSupplyFailed, "not found"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			s := newStage(t, row.skipDetect, row.order...).run(t)
			if got := stager.CodeOf(s.err); got != row.code {
				t.Errorf("exit code %d, want %d (%v)\n%s", got, row.code, s.err, s.out)
			}
			if s.err != nil && !strings.Contains(s.err.Error(), row.says) {
				t.Errorf("error %q does not say %q", s.err, row.says)
			}
			text, err := os.ReadFile(s.cfg.OutputMetadata)
			if err != nil {
				t.Fatal(err)
			}
			want := `{"lifecycle_type":"buildpack","lifecycle_metadata":{"detected_buildpack":""},"process_types":null,"execution_metadata":""}` + "\n"
			if diff := cmp.Diff(want, string(text)); diff != "" {
				t.Errorf("result.json of a failure (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(s.cfg.OutputDroplet); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("there is a droplet after a failure: %v", err)
			}
		})
	}
}

func TestRun_detectMode(t *testing.T) {
	s := newStage(t, false, "never", "missing", "whole", "old").mustRun(t)
	want := stager.BuildpackResult{
		LifecycleType: "buildpack",
		LifecycleMetadata: stager.BuildpackMetadata{
			BuildpackKey: "whole", DetectedBuildpack: "Whole 1.2",
			Buildpacks: []stager.Buildpack{{Key: "whole", Name: "whole", Version: "1.2.3"}},
		},
		ProcessTypes: stager.ProcessTypes{"web": "tool web", "worker": "tool worker"},
		Processes:    []stager.Process{{Type: "web", Command: "tool web"}, {Type: "worker", Command: "tool worker"}},
	}
	if diff := cmp.Diff(want, s.result(t)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	droplet := entries(t, s.cfg.OutputDroplet)
	wantNames := []string{
		"./", "./app/", "./app/app.txt", "./app/link", "./deps/", "./deps/0/", "./deps/0/bin/", "./deps/0/bin/tool", "./deps/0/config.yml",
		"./logs/", "./profile.d/", "./profile.d/000_multi-supply.sh", "./staging_info.yml", "./tmp/",
	}
	if diff := cmp.Diff(wantNames, names(droplet)); diff != "" {
		t.Errorf("droplet (-want +got):\n%s", diff)
	}
	if got := droplet["./app/link"]; got != "-> app.txt" {
		t.Errorf("link became %q", got)
	}
	wantInfo := `{"detected_buildpack":"Whole 1.2","start_command":"tool web","config":{}}` + "\n"
	if diff := cmp.Diff(wantInfo, droplet["./staging_info.yml"]); diff != "" {
		t.Errorf("staging_info.yml (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"./", "./final/", "./final/kept"}, names(entries(t, s.cfg.OutputCache))); diff != "" {
		t.Errorf("cache (-want +got):\n%s", diff)
	}
}

func TestRun_supplyMode(t *testing.T) {
	s := newStage(t, true, "supplier", "whole")
	s.env = append(s.env, "CF_STACK=cflinuxfs4", `VCAP_PLATFORM_OPTIONS={"credhub-uri":""}`,
		`VCAP_SERVICES={"mail":[{"credentials":{"uri":"smtp://x"}}],"db":[{"credentials":{"uri":"mysql://u:p@h/d"}}]}`)
	for _, stale := range []string{"other", buildpack.DirName("supplier"), "final"} {
		mkdir(t, filepath.Join(s.cfg.CacheDir, stale))
		if err := os.WriteFile(filepath.Join(s.cfg.CacheDir, stale, "kept"), []byte("before\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.mustRun(t)
	for _, line := range []string{
		"supplier supplies 0, DATABASE_URL=mysql2://u:p@h/d, options=unset, stack=cflinuxfs4",
		"whole supplies 1 BUILD CACHE DEPS 1", "deps: 0", "deps: 1",
	} {
		if !strings.Contains(s.out, line+"\n") {
			t.Errorf("output has no line %q:\n%s", line, s.out)
		}
	}
	result := s.result(t)
	wantMeta := stager.BuildpackMetadata{
		BuildpackKey: "whole", DetectedBuildpack: "whole",
		Buildpacks: []stager.Buildpack{{Key: "supplier", Name: "supplier", Version: "9"}, {Key: "whole", Name: "whole", Version: "1.2.3"}},
	}
	if diff := cmp.Diff(wantMeta, result.LifecycleMetadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	hash := buildpack.DirName("supplier")
	wantCache := map[string]string{
		"./": "", "./final/": "", "./final/kept": "before\nkept\n", "./" + hash + "/": "", "./" + hash + "/kept": "before\nkept\n",
	}
	if diff := cmp.Diff(wantCache, entries(t, s.cfg.OutputCache)); diff != "" {
		t.Errorf("cache: what is used stays, the rest goes (-want +got):\n%s", diff)
	}
}

func TestRun_compileOnlyLeavesDepsEmpty(t *testing.T) {
	s := newStage(t, true, "old").mustRun(t)
	droplet := entries(t, s.cfg.OutputDroplet)
	want := []string{
		"./", "./app/", "./app/app.txt", "./app/compiled", "./deps/", "./logs/", "./profile.d/", "./staging_info.yml", "./tmp/",
	}
	if diff := cmp.Diff(want, names(droplet)); diff != "" {
		t.Errorf("droplet (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(`{"detected_buildpack":"","start_command":"./compiled"}`+"\n", droplet["./staging_info.yml"]); diff != "" {
		t.Errorf("staging_info.yml (-want +got):\n%s", diff)
	}
}

func TestRun_compileOnlyAfterOthersWarns(t *testing.T) {
	s := newStage(t, true, "supplier", "old").mustRun(t)
	if !strings.Contains(s.out, "Warning: the last buildpack has no bin/finalize") {
		t.Errorf("no warning:\n%s", s.out)
	}
	if droplet := entries(t, s.cfg.OutputDroplet); droplet["./deps/0/config.yml"] == "" {
		t.Errorf("the supplier's part is gone: %v", names(droplet))
	}
}

func TestRun_startCommands(t *testing.T) {
	for _, row := range []struct {
		promise, bp, procfile string
		want                  stager.ProcessTypes
	}{
		{"release says", "old", "", stager.ProcessTypes{"web": "./compiled"}},
		{"the Procfile wins, type by type", "whole", "web: mine --port $PORT\n", stager.ProcessTypes{"web": "mine --port $PORT", "worker": "tool worker"}},
		{"the Procfile adds", "old", "clock: tick\n", stager.ProcessTypes{"web": "./compiled", "clock": "tick"}},
		{"launch.yml replaces release", "launch-yml", "", stager.ProcessTypes{"web": "run web", "worker": "run worker"}},
		{"the Procfile wins over launch.yml", "launch-yml", "web: mine", stager.ProcessTypes{"web": "mine", "worker": "run worker"}},
		{"nobody says", "release-silent", "", stager.ProcessTypes{}},
	} {
		t.Run(row.promise, func(t *testing.T) {
			s := newStage(t, true, row.bp)
			if row.procfile != "" {
				s.write(t, "Procfile", row.procfile)
			}
			s.mustRun(t)
			if diff := cmp.Diff(row.want, s.result(t).ProcessTypes); diff != "" {
				t.Errorf("process types (-want +got):\n%s", diff)
			}
			warned := strings.Contains(s.out, "No start command specified by buildpack or via Procfile.")
			if _, has := row.want["web"]; warned == has {
				t.Errorf("warned %v about a missing start command:\n%s", warned, s.out)
			}
		})
	}
}

func TestRun_badProcfileIsAnError(t *testing.T) {
	s := newStage(t, true, "old")
	s.write(t, "Procfile", "web: [1\n")
	if s.run(t); stager.CodeOf(s.err) != stager.ExitError || !strings.Contains(s.err.Error(), "Procfile") {
		t.Errorf("got %v", s.err)
	}
}

func TestRun_sidecarsAndEntrypointPrefix(t *testing.T) {
	s := newStage(t, true, "launch-yml").mustRun(t)
	want := []stager.Sidecar{{Name: "proxy", ProcessTypes: []string{"web", "worker"}, Command: "run proxy", Memory: 32}}
	if diff := cmp.Diff(want, s.result(t).Sidecars); diff != "" {
		t.Errorf("sidecars (-want +got):\n%s", diff)
	}
	got := entries(t, s.cfg.OutputDroplet)["./staging_info.yml"]
	wantInfo := `{"detected_buildpack":"launcher","start_command":"run web","config":{"entrypoint_prefix":"prefix"}}` + "\n"
	if diff := cmp.Diff(wantInfo, got); diff != "" {
		t.Errorf("staging_info.yml (-want +got):\n%s", diff)
	}
}

// TestRun_elevenBuildpacks: indices have as many digits as the count, so that deps/*/bin sorts by order.
func TestRun_elevenBuildpacks(t *testing.T) {
	order := slices.Repeat([]string{"supplier"}, 1)
	s := newStage(t, true, "supplier", "whole")
	s.cfg.Order = append(slices.Repeat(order, 10), "whole")
	s.mustRun(t)
	droplet := entries(t, s.cfg.OutputDroplet)
	for _, name := range []string{"./deps/00/config.yml", "./deps/09/config.yml", "./deps/10/config.yml"} {
		if _, ok := droplet[name]; !ok {
			t.Errorf("no %s in %v", name, names(droplet))
		}
	}
}

func TestRun_leavesNoContentsBehind(t *testing.T) {
	s := newStage(t, true, "whole").mustRun(t)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.cfg.BuildDir), "contents*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRun_cancelled(t *testing.T) {
	s := newStage(t, true, "whole")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := build.Run(ctx, s.cfg, s.env, io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestRun_refusesCredHub(t *testing.T) {
	s := newStage(t, true, "whole")
	s.env = append(s.env, `VCAP_PLATFORM_OPTIONS={"credhub-uri":"https://credhub"}`, `VCAP_SERVICES={"x":[{"credentials":{"credhub-ref":"/a"}}]}`)
	if s.run(t); stager.CodeOf(s.err) != stager.ExitCredHub {
		t.Errorf("got %v", s.err)
	}
}
