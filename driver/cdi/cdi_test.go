package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const fuse = `
cdiVersion: "0.6.0"
kind: example.com/fs
containerEdits:
  env: [ALL=1]
devices:
- name: fuse
  containerEdits:
    env: [FUSE=yes]
    deviceNodes:
    - {path: /dev/fuse, permissions: rw, fileMode: 438, uid: 0}
    - {path: /dev/two, hostPath: /dev/host2, type: c, major: 1, minor: 3}
    mounts:
    - {hostPath: /usr/lib/fuse, containerPath: /lib/fuse, options: [ro, nosuid, nodev, rbind]}
- name: other
  containerEdits: {env: [OTHER=1]}
`

func TestFind(t *testing.T) {
	etc, run := t.TempDir(), t.TempDir()
	write(t, etc, "fuse.yaml", fuse)
	write(t, etc, "broken.yaml", "kind: other.com/x\ndevices: 7")
	write(t, etc, "noise.txt", "kind: example.com/fs")
	got, err := Find([]string{etc, run, "/does/not/exist"}, []string{"example.com/fs=fuse", "example.com/fs=other"})
	want := Edits{
		Env: []string{"ALL=1", "FUSE=yes", "OTHER=1"},
		Devices: []driver.Device{
			{Source: "/dev/fuse", Target: "/dev/fuse", Access: "rw"}, {Source: "/dev/host2", Target: "/dev/two", Access: "rwm"},
		},
		Mounts: []driver.Mount{{Source: "/usr/lib/fuse", Target: "/lib/fuse", ReadOnly: true, Recursive: true, IDMapped: true}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	write(t, run, "fuse.json", `{"cdiVersion": "0.6.0", "kind": "example.com/fs", "devices": [{"name": "fuse", "containerEdits": {"env": ["RUN=1"]}}]}`)
	got, err = Find([]string{etc, run}, []string{"example.com/fs=fuse"})
	if diff := cmp.Diff(Edits{Env: []string{"RUN=1"}}, got); diff != "" || err != nil {
		t.Error("the later directory does not win:", err, diff)
	}
	if got, err := Find([]string{etc}, nil); err != nil || got.Env != nil {
		t.Error(got, err)
	}
}

func TestFind_refuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Find([]string{dir}, []string{"a.com/b=c"}); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "a.com/b=c") {
		t.Error(err)
	}
	for edits, want := range map[string]string{
		`{hooks: [{hookName: createContainer, path: /bin/hook}]}`:                 "/bin/hook",
		`{netDevices: [{hostInterfaceName: eth0}]}`:                               "netDevices",
		`{intelRdt: {closID: x}}`:                                                 "intelRdt",
		`{additionalGids: [44]}`:                                                  "additionalGids",
		`{novelty: 1}`:                                                            "novelty",
		`{mounts: [{hostPath: /a, containerPath: /b, type: tmpfs}]}`:              "tmpfs",
		`{mounts: [{hostPath: /a, containerPath: /b, options: [rshared, bind]}]}`: "rshared",
	} {
		write(t, dir, "a.yaml", "kind: a.com/b\ndevices: [{name: c, containerEdits: "+edits+"}]")
		if _, err := Find([]string{dir}, []string{"a.com/b=c"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", edits, err)
		}
	}
	write(t, dir, "a.yaml", "kind: a.com/b\ndevices: [{name: c}]")
	write(t, dir, "b.yaml", "kind: a.com/b\ndevices: [{name: c}]")
	if _, err := Find([]string{dir}, []string{"a.com/b=c"}); err == nil || !strings.Contains(err.Error(), "b.yaml") {
		t.Errorf("two files about one device: %v", err)
	}
}

func TestIsName(t *testing.T) {
	for text, want := range map[string]bool{
		"nvidia.com/gpu=0": true, "vendor/class=GPU-1:2": true, "/dev/fuse": false, "a/b": false, "a/b=": false, "../a=b": false, "a/b/c=d": false,
	} {
		if IsName(text) != want {
			t.Errorf("%s", text)
		}
	}
}
