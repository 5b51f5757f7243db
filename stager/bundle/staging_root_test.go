//go:build root

package bundle_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"drover/stager/bundle"
)

// TestNodeApp_asVcap stages the Node sample app with a module from the npm registry, and runs it, as uid 2000 in
// directories of its own. It needs root, npm and the registry.
func TestNodeApp_asVcap(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	zipFile, err := bundle.NodeBuildpack(t.Context(), filepath.Join(cache, "drover", "buildpacks"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, bundle.SampleNodeApp(), "node", zipFile)
	s.lifecycle(t, bundle.BuildpackLifecycle())
	// A machine whose registry is behind certificates of its own has them in its bundle, as a container has the
	// platform's.
	if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err == nil {
		s.env = append(s.env, "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt")
	}
	s.becomeVcap(t)
	out := s.stage(t, "node")
	for _, says := range []string{"Installing modules (npm ci)", "added 1 package", "Starts with: node server.js"} {
		if !strings.Contains(out, says) {
			t.Errorf("builder did not say %q:\n%s", says, out)
		}
	}
	r := s.launch(t, "", "INSTANCE_INDEX=1", "INSTANCE_GUID=guid-1")
	probe := s.command(t.Context(), s.path("lifecycle", "healthcheck"), "-uri=/health", "-timeout=5s", "-port="+r.url[strings.LastIndex(r.url, ":")+1:])
	if text, err := probe.CombinedOutput(); err != nil || string(text) != "healthcheck passed\n" {
		t.Errorf("healthcheck: %v %q", err, text)
	}
	checkNode(t, r, 2000)

	stopped := s.launch(t, "")
	if err := stopped.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stopped.await(t, regexp.MustCompile(`asked to stop`))
	if code := stopped.wait(t); code != 0 {
		t.Errorf("stopped with exit code %d, want 0", code)
	}
}

// becomeVcap gives the site to uid 2000 and lets it reach it.
func (s *site) becomeVcap(t *testing.T) {
	t.Helper()
	s.cred = &syscall.Credential{Uid: 2000, Gid: 2000}
	if err := os.Mkdir(s.path("out"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(s.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(path, s.path("lifecycle")) || strings.HasPrefix(path, s.path("buildpacks")) {
			return err // Those belong to the platform.
		}
		return os.Lchown(path, 2000, 2000)
	})
	if err != nil {
		t.Fatal(err)
	}
}
