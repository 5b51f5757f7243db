package buildpack_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drover/stager/buildpack"
)

// entry is one file of an archive.
type entry struct {
	name, content string
	mode          fs.FileMode
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		header.SetMode(e.mode)
		w, err := zw.CreateHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// serve answers GET /bp.zip with an archive, to whoever knows the password.
func serve(t *testing.T, text []byte, start func(http.Handler) *httptest.Server) string {
	t.Helper()
	server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "canary" || r.URL.Path != "/bp.zip" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "://", "://user:canary@", 1) + "/bp.zip"
}

func TestFetch_zip(t *testing.T) {
	text := archive(t,
		entry{"pack/", "", fs.ModeDir | 0o755},
		entry{"pack/bin/detect", "#!/bin/sh\necho zipped\n", 0o755},
		entry{"pack/link", "bin/detect", fs.ModeSymlink | 0o777},
		entry{"pack/setuid", "x", 0o4755 | fs.ModeSetuid},
	)
	for _, row := range []struct {
		promise string
		start   func(http.Handler) *httptest.Server
		source  buildpack.Source
		fails   string
	}{
		{"by http", httptest.NewServer, buildpack.Source{}, ""},
		{"by https, when nobody checks", httptest.NewTLSServer, buildpack.Source{SkipVerify: true}, ""},
		{"not by https that nobody trusts", httptest.NewTLSServer, buildpack.Source{}, "certificate"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			base := t.TempDir()
			key := serve(t, text, row.start)
			err := row.source.Fetch(t.Context(), base, key)
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) || strings.Contains(err.Error(), "canary") {
					t.Errorf("got %v, want an error about %s, without the password", err, row.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkZipped(t, base, key)
		})
	}
}

// checkZipped finds the unpacked buildpack and runs it.
func checkZipped(t *testing.T, base, key string) {
	t.Helper()
	b, err := buildpack.Find(base, key)
	if err != nil {
		t.Fatal(err)
	}
	name, claimed, err := buildpack.Scripts{}.Claims(t.Context(), b, "x")
	if name != "zipped" || !claimed || err != nil {
		t.Errorf("Claims: %q, %v, %v", name, claimed, err)
	}
	if info, err := os.Stat(filepath.Join(b.Dir, "setuid")); err != nil || info.Mode()&fs.ModeSetuid != 0 {
		t.Errorf("setuid: %v, %v", info, err)
	}
}

func TestFetch_zipRefuses(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, row := range []struct {
		promise string
		entries []entry
	}{
		{"a name that climbs", []entry{{"../outside", "x", 0o644}}},
		{"an absolute name", []entry{{outside, "x", 0o644}}},
		{"a file behind a link that leaves", []entry{{"dir", filepath.Dir(outside), fs.ModeSymlink | 0o777}, {"dir/outside", "x", 0o644}}},
		{"a device", []entry{{"dev", "", fs.ModeDevice | 0o600}}},
	} {
		t.Run(row.promise, func(t *testing.T) {
			base := t.TempDir()
			err := buildpack.Source{}.Fetch(t.Context(), base, serve(t, archive(t, row.entries...), httptest.NewServer))
			if err == nil {
				t.Error("no error")
			}
			for _, file := range []string{outside, filepath.Join(base, "outside")} {
				if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was written: %v", file, err)
				}
			}
		})
	}
}

func TestFetch_errorsNameTheBuildpackOnly(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, key := range []string{
		strings.Replace(gone.URL, "://", "://user:canary@", 1) + "/bp.zip?sig=canary",
		strings.Replace(serve(t, nil, httptest.NewServer), "bp.zip", "other.zip?sig=canary", 1),
	} {
		err := buildpack.Source{}.Fetch(t.Context(), t.TempDir(), key)
		if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), ".zip") {
			t.Errorf("got %v", err)
		}
	}
}

func TestFetch_git(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal("this test needs git, as the repository does")
	}
	repo := t.TempDir()
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), git, append([]string{"-C", repo}, args...)...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func(name string) {
		place(t, repo, ".")
		if err := os.WriteFile(filepath.Join(repo, "bin", "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		run("add", "bin")
		run("commit", "--quiet", "-m", name)
	}
	run("init", "--quiet", "--initial-branch=main")
	commit("first")
	first := run("rev-parse", "HEAD")
	run("branch", "old")
	commit("second")

	for _, row := range []struct{ promise, fragment, want string }{
		{"the default branch", "", "second"},
		{"a branch", "#old", "first"},
		{"a commit", "#" + first, "first"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			base := t.TempDir()
			key := "file://localhost" + repo + row.fragment
			var said bytes.Buffer
			if err := (buildpack.Source{Env: env, Stdout: &said, Stderr: &said}).Fetch(t.Context(), base, key); err != nil {
				t.Fatalf("%v\n%s", err, said.String())
			}
			b, err := buildpack.Find(base, key)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(b.Dir, "bin", "name")); string(got) != row.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestFetch_withoutGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := buildpack.Source{}.Fetch(t.Context(), t.TempDir(), "https://example.com/some/buildpack")
	if !errors.Is(err, buildpack.ErrNoGit) {
		t.Errorf("got %v, want ErrNoGit", err)
	}
}

func TestIsURL(t *testing.T) {
	for key, want := range map[string]bool{
		"ruby_buildpack": false, "3f2a-guid_sha256": false, "https://h/x.zip": true, "http://h/x": true, "git://h/x#b": true, "ssh://git@h/x": true,
	} {
		if got := buildpack.IsURL(key); got != want {
			t.Errorf("IsURL(%q) = %v", key, got)
		}
	}
}
