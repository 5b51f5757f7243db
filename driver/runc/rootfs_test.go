package runc

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newRootfs makes a root with accounts, and a secret beside it.
func newRootfs(t *testing.T) (*Rootfs, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/bash\nodd:x:77:77::relative/home:/bin/sh\n",
		"etc/group":  "root:x:0:\nvcap:x:2000:\nextra:x:3000:vcap\n",
		"data/file":  "inside",
		"../secret":  "outside",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := OpenRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root, dir
}

func TestUser(t *testing.T) {
	root, _ := newRootfs(t)
	for spec, want := range map[string]User{
		"":           {Name: "root", Home: "/root"},
		"root":       {Name: "root", Home: "/root"},
		"vcap":       {UID: 2000, GID: 2000, Groups: []uint32{3000}, Name: "vcap", Home: "/home/vcap"},
		"2000":       {UID: 2000, GID: 2000, Groups: []uint32{3000}, Name: "vcap", Home: "/home/vcap"},
		"vcap:extra": {UID: 2000, GID: 3000, Name: "vcap", Home: "/home/vcap"},
		"4242:17":    {UID: 4242, GID: 17, Name: "4242", Home: "/"},
		"odd":        {UID: 77, GID: 77, Name: "odd", Home: "/relative/home"},
	} {
		got, err := root.User(spec)
		same := got.UID == want.UID && got.GID == want.GID && got.Name == want.Name && got.Home == want.Home &&
			slices.Equal(got.Groups, want.Groups)
		if err != nil || !same {
			t.Errorf("%q: %+v, %v, want %+v", spec, got, err, want)
		}
	}
	for _, spec := range []string{"stranger", "vcap:strangers", "-1", "99999999999"} {
		if got, err := root.User(spec); err == nil {
			t.Errorf("%q is %+v", spec, got)
		}
	}
}

func TestUser_withoutAccounts(t *testing.T) {
	root, dir := newRootfs(t)
	if err := os.RemoveAll(filepath.Join(dir, "etc")); err != nil {
		t.Fatal(err)
	}
	if got, err := root.User("2000"); err != nil || got.UID != 2000 || got.Home != "/" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := root.User("vcap"); err == nil {
		t.Error("a name is known")
	}
}

func TestOpen(t *testing.T) {
	root, dir := newRootfs(t)
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("/data/file", "absolute")
	link("../../../data/file", "up")
	link("../../secret", "out")
	link(filepath.Join(filepath.Dir(dir), "secret"), "host")
	link("/proc/self/root", "magic")
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data/file", "/data/file", "absolute", "up", "/../../data/file"} {
		file, err := root.Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = file.Close()
	}
	for _, name := range []string{"out", "host", "../secret", "/../secret", "magic/etc/passwd", "missing"} {
		if file, err := root.Open(name); err == nil {
			t.Errorf("%s is opened", name)
			_ = file.Close()
		}
	}
	for _, name := range []string{"fifo", "data"} {
		if _, err := root.Open(name); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !root.IsDir("/data") || root.IsDir("/data/file") || root.IsDir("/missing") {
		t.Error("directories are not known")
	}
}

func TestUser_refusesHugeAccounts(t *testing.T) {
	root, dir := newRootfs(t)
	if err := os.Truncate(filepath.Join(dir, "etc/passwd"), 1<<33); err != nil {
		t.Fatal(err)
	}
	if _, err := root.User("vcap"); err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Errorf("error is %v", err)
	}
}
