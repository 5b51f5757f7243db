package task

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseVolume(t *testing.T) {
	for text, want := range map[string]MountWish{
		"local/a:/a":               {Source: "local/a", Target: "/a"},
		"/srv/a:/a:ro":             {Source: "/srv/a", Target: "/a", ReadOnly: true},
		"/srv/a:/a:rw,rshared":     {Source: "/srv/a", Target: "/a", Propagation: "rshared"},
		"../alloc/a:/a:ro,private": {Source: "../alloc/a", Target: "/a", ReadOnly: true, Propagation: "private"},
	} {
		want.Field, want.Type, want.Create = "volumes", "bind", true
		got, err := ParseVolume(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"/data": "SOURCE:TARGET", "a:b:c:d": "SOURCE:TARGET", ":/a": "SOURCE:TARGET", "a:/a:z": "SELinux", "a:/a:nocopy": `"nocopy"`,
	} {
		if _, err := ParseVolume(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	for text, want := range map[string]MountWish{
		"/a":                         {Target: "/a"},
		"/a:size=64m,mode=0750,exec": {Target: "/a", SizeBytes: 64 << 20, Mode: 0o750, Exec: true},
		"/a:ro,noexec,size=4096":     {Target: "/a", SizeBytes: 4096, ReadOnly: true},
	} {
		want.Field, want.Type = "tmpfs", "tmpfs"
		got, err := ParseTmpfs(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{"/a:size=x", "/a:size=", "/a:size=-1", "/a:size=9999999999g", "/a:mode=8", "/a:suid", "/a:dev"} {
		if _, err := ParseTmpfs(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestMountWish_refuses(t *testing.T) {
	node := testNode()
	node.AllowHostPaths = []string{"/srv", "/srv/ro", "/share"}
	node.Storage.HostPaths = []HostPath{{Dir: "/srv"}, {Dir: "/srv/ro", ReadOnly: true}, {Dir: "/share", Shared: true}}
	bind := func(source string, change ...func(*MountWish)) MountWish {
		m := MountWish{Field: "mount", Type: "bind", Source: source, Target: "/mnt"}
		for _, c := range change {
			c(&m)
		}
		return m
	}
	readOnly := func(m *MountWish) { m.ReadOnly = true }
	spread := func(word string) func(*MountWish) { return func(m *MountWish) { m.Propagation = word } }
	at := func(target string) MountWish { return bind("local", func(m *MountWish) { m.Target = target }) }
	for _, m := range []MountWish{
		bind("local/x"), bind("./local"), bind("../alloc/data"), bind("../alloc/logs", readOnly), bind("secrets/x"), bind("/srv"), bind("/srv/x", spread("rslave")),
		bind("/srv/ro/x", readOnly), bind("/share/x", spread("shared")), at("/dev/shm"), at("/allocation"), at("/local/x"),
		{Type: "tmpfs", Target: "/tmp", SizeBytes: 1, Mode: 0o777},
	} {
		if err := m.validate(node); err != nil {
			t.Errorf("%+v: %v", m, err)
		}
	}
	for _, row := range []struct {
		mount MountWish
		want  string
	}{
		{bind(""), "source"},
		{bind("."), "below the task's directory"},
		{bind("local/../.."), "below the task's directory"},
		{bind("../other/secrets"), "below the task's directory"},
		{bind("../alloc"), "below the task's directory"},
		{bind("../allocation/x"), "below the task's directory"},
		{bind("../alloc/logs"), "read-only"},
		{bind("../alloc/./logs/web.stdout.0"), "read-only"},
		{bind("private/run"), "private"},
		{bind("local", spread("rshared")), "absolute"},
		{bind("local", spread("sideways")), "sideways"},
		{bind("/etc"), "allow_host_paths"},
		{bind("/srv/../etc"), ". or .."},
		{bind("/srv2"), "allow_host_paths"},
		{bind("/srv/ro/x"), "read-only"},
		{bind("/srv/x", spread("rshared")), "/srv:shared"},
		{at(""), "absolute"}, {at("mnt"), "absolute"}, {at("/"), "below /"}, {at("/a/../b"), ".."},
		{at("/proc"), "/proc"}, {at("/sys/fs"), "/sys"}, {at("/dev"), "/dev"}, {at("/alloc"), "/alloc"}, {at("/alloc/logs/x"), "/alloc/logs"},
		{at("/secrets"), "/secrets"}, {at("/.drover/init"), "/.drover"},
		{MountWish{Target: "/a"}, "volume_mount"},
		{MountWish{Type: "volume", Source: "db", Target: "/a"}, "volume_mount"},
		{MountWish{Type: "npipe", Target: "/a"}, "npipe"},
		{MountWish{Type: "tmpfs", Target: "/a", Source: "b"}, "source"},
		{MountWish{Type: "tmpfs", Target: "/a", SizeBytes: -1}, "size"},
		{MountWish{Type: "tmpfs", Target: "/a", Propagation: "shared"}, "bind_options"},
		{bind("local", func(m *MountWish) { m.SizeBytes = 1 }), "tmpfs_options"},
	} {
		if err := row.mount.validate(node); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: got %v, want %q", row.mount, err, row.want)
		}
	}
	if err := (StorageWish{Mounts: make([]MountWish, maxMounts+1)}).validate(node); err == nil {
		t.Error("took more mounts than anybody needs")
	}
	if err := (StorageConfig{HostPaths: []HostPath{ParseHostPath("/srv:rw")}}).validate(); err == nil {
		t.Error("took a host path with a word that means nothing")
	}
}
