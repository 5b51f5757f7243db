package buildpack_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/stager/buildpack"
)

// TestDirName: platforms and builders find each other by these names.
func TestDirName(t *testing.T) {
	for key, want := range map[string][2]string{
		"":    {"ef46db3751d8e999", "d41d8cd98f00b204e9800998ecf8427e"},
		"abc": {"44bc2cf5ad770999", "900150983cd24fb0d6963f7d28e17f72"},
	} {
		if got := buildpack.DirName(key); got != want[0] {
			t.Errorf("DirName(%q) = %s, want %s", key, got, want[0])
		}
		if got := buildpack.OldDirName(key); got != want[1] {
			t.Errorf("OldDirName(%q) = %s, want %s", key, got, want[1])
		}
	}
}

// place makes directories with a bin/detect below base.
func place(t *testing.T, base string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(base, name, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	const key = "key"
	young, old := buildpack.DirName(key), buildpack.OldDirName(key)
	for _, row := range []struct {
		promise string
		dirs    []string
		want    string
	}{
		{"by today's name", []string{young}, young},
		{"by the older name", []string{old}, old},
		{"today's name first", []string{young, old}, young},
		{"within the one directory of its archive", []string{young + "/nested"}, young + "/nested"},
		{"not within one of several", []string{young + "/a", young + "/b"}, ""},
		{"not at all", []string{"other"}, ""},
	} {
		t.Run(row.promise, func(t *testing.T) {
			base := t.TempDir()
			place(t, base, row.dirs...)
			got, err := buildpack.Find(base, key)
			if row.want == "" {
				if !errors.Is(err, buildpack.ErrMissing) {
					t.Errorf("got %v, %v; want ErrMissing", got, err)
				}
				return
			}
			if err != nil || got.Dir != filepath.Join(base, row.want) {
				t.Errorf("got %v, %v; want %s", got, err, row.want)
			}
		})
	}
}

func fixture(t *testing.T) *buildpack.Buildpack {
	t.Helper()
	dir, err := filepath.Abs("testdata/talker")
	if err != nil {
		t.Fatal(err)
	}
	return &buildpack.Buildpack{Key: "talker", Dir: dir}
}

func TestScripts(t *testing.T) {
	b := fixture(t)
	var stdout, stderr bytes.Buffer
	s := buildpack.Scripts{Env: []string{"PATH=" + os.Getenv("PATH"), "WORD=hello"}, Stdout: &stdout, Stderr: &stderr}
	if !b.Has(buildpack.Supply) || b.Has(buildpack.Finalize) {
		t.Error("Has: supply is there, finalize is not")
	}
	if err := s.Run(t.Context(), b, buildpack.Supply, "a", "b c"); err != nil {
		t.Fatal(err)
	}
	if got := stdout.String(); got != "out hello a b c 2\n" {
		t.Errorf("stdout %q", got)
	}
	if got := stderr.String(); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	name, claimed, err := s.Claims(t.Context(), b, "yes")
	if name != "talker 1" || !claimed || err != nil {
		t.Errorf("Claims: %q, %v, %v", name, claimed, err)
	}
	if _, claimed, err := s.Claims(t.Context(), b, "no"); claimed || err != nil {
		t.Errorf("Claims of what it does not want: %v, %v", claimed, err)
	}
	if _, _, err := s.Claims(t.Context(), &buildpack.Buildpack{Dir: t.TempDir()}, "yes"); err == nil {
		t.Error("Claims without bin/detect is no error")
	}
}

func TestScripts_zeroHasNoEnvironment(t *testing.T) {
	t.Setenv("WORD", "leaked")
	out, err := buildpack.Scripts{}.Output(t.Context(), fixture(t), buildpack.Supply)
	if err != nil || strings.Contains(string(out), "leaked") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestScripts_talkativeReleaseIsCutNotKilled(t *testing.T) {
	s := buildpack.Scripts{Env: []string{"PATH=" + os.Getenv("PATH")}}
	out, err := s.Output(t.Context(), fixture(t), buildpack.Release)
	if err != nil || len(out) != 1<<20 {
		t.Errorf("got %d bytes, %v; want 1 MiB", len(out), err)
	}
}
