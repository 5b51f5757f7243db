package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"drover/driver/image"
)

func TestWish_layout(t *testing.T) {
	for given, want := range map[string]image.Layout{
		"docker-archive:local/a.tar":      {Kind: image.DockerArchive, Path: "local/a.tar"},
		"docker-archive:/srv/a.tar:r:1":   {Kind: image.DockerArchive, Path: "/srv/a.tar", Ref: "r:1"},
		"oci-archive:local/a.tar:one":     {Kind: image.OCIArchive, Path: "local/a.tar", Ref: "one"},
		"oci:local/dir":                   {Kind: image.OCIDirectory, Path: "local/dir"},
		"oci:5000/team/app":               {},
		"redis:7":                         {},
		"registry.example.com:5000/a/b:1": {},
		"docker-archive":                  {},
	} {
		got, ok := Wish{Image: given}.layout()
		if !ok {
			got = image.Layout{}
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(image.Layout{}, "Root")); diff != "" || ok != (want.Kind != "") {
			t.Errorf("%s: %v\n%s", given, ok, diff)
		}
	}
	got, ok := Wish{Image: "redis:7", Pull: PullWish{Load: "a.tar"}}.layout()
	if !ok || got.Path != "local/a.tar" || got.Ref != "redis:7" {
		t.Errorf("load: got %+v", got)
	}
}

func TestWishValidate_images(t *testing.T) {
	for _, row := range []struct {
		wish Wish
		says string // empty: fine
	}{
		{Wish{Image: "docker-archive:local/a.tar"}, ""},
		{Wish{Image: "oci:/srv/images/a"}, ""},
		{Wish{Pull: PullWish{Load: "a.tar"}}, ""},
		{Wish{Image: "a", Pull: PullWish{Platform: "linux/arm64/v8"}}, ""},
		{Wish{Image: "docker-archive:../a.tar"}, "below the task's directory"},
		{Wish{Image: "docker-archive:/etc/a.tar"}, "allow_host_paths"},
		{Wish{Image: "docker-archive:/srv/../etc/a.tar"}, ".."},
		{Wish{Pull: PullWish{Load: "../../a.tar"}}, "load"},
		{Wish{Pull: PullWish{Load: "/etc/a.tar"}}, "load"},
		{Wish{RootFS: "debian", Pull: PullWish{Load: "a.tar"}}, "load and rootfs"},
		{Wish{Image: "a", Pull: PullWish{Platform: "windows/amd64"}}, "windows"},
		{Wish{Image: "a", Pull: PullWish{Timeout: -1}}, "image_pull_timeout"},
		{Wish{RunInfo: true, Pull: PullWish{Force: true}}, "force_pull"},
	} {
		err := row.wish.Validate(testNode())
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%+v: %v, want %q", row.wish.Pull, err, row.says)
		}
	}
}

// A link in the task's directory leads nowhere else.
func TestLayoutRoot(t *testing.T) {
	alloc, outside := t.TempDir(), t.TempDir()
	local := filepath.Join(alloc, "web", "local")
	if err := os.MkdirAll(local, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "x.tar"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(local, "out")); err != nil {
		t.Fatal(err)
	}
	s := &start{m: &Manager{node: Config{AllowHostPaths: []string{outside}}}, facts: facts{req: Request{AllocDir: alloc, TaskName: "web"}}}
	for path, found := range map[string]bool{"local/out/x.tar": false, filepath.Join(outside, "x.tar"): true} {
		root, rest, err := s.layoutRoot(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := root.Open(rest)
		if (err == nil) != found {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			_ = file.Close()
		}
		_ = root.Close()
	}
}

func TestManager_holdsLease(t *testing.T) {
	m := &Manager{node: Config{StateDir: t.TempDir(), Pull: PullConfig{Prefetch: []string{"a/b:1"}}}}
	if err := os.MkdirAll(m.dir("alive"), 0o755); err != nil {
		t.Fatal(err)
	}
	for owner, want := range map[string]bool{"alive": true, "dead": false, prefetchName("a/b:1"): true, prefetchName("a/b:2"): false} {
		if got := m.holdsLease(owner); got != want {
			t.Errorf("%s: %v", owner, got)
		}
	}
}
