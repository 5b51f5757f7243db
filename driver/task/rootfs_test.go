package task

import (
	"strings"
	"testing"
)

func TestParseRootFS(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, row := range []struct {
		raw  string
		want rootRef
		err  string
	}{
		{"preloaded:cflinuxfs4", rootRef{Stack: "cflinuxfs4"}, ""},
		{"docker://reg.example.com:5000/team/app#1.2", rootRef{Image: "reg.example.com:5000/team/app:1.2"}, ""},
		{"docker:///library/busybox#latest", rootRef{Image: "docker.io/library/busybox:latest"}, ""},
		{"docker:///library/busybox", rootRef{Image: "docker.io/library/busybox:latest"}, ""},
		{"docker:///busybox#1", rootRef{Image: "docker.io/library/busybox:1"}, ""},
		{"docker:///a/b@sha256#" + hex, rootRef{Image: "docker.io/a/b@sha256:" + hex}, ""},
		{"docker:///a/b#1.2@sha256:" + hex, rootRef{Image: "docker.io/a/b:1.2@sha256:" + hex}, ""},
		{"docker://h/a/b#@sha256:" + hex, rootRef{Image: "h/a/b@sha256:" + hex}, ""},
		{"docker:///a/b@sha256#beef", rootRef{}, "not a digest"},
		{"docker:///a/b:1.2", rootRef{}, "belong behind #"},
		{"docker://u:hunter2@h/a/b#1", rootRef{}, "image_username"},
		{"docker://h/", rootRef{}, "names no image"},
		{"preloaded:", rootRef{}, "names no stack"},
		{"preloaded+layer:cflinuxfs4?layer=x", rootRef{}, `scheme "preloaded+layer" is not supported`},
		{"oci:///x", rootRef{}, "preloaded and docker are"},
		{"", rootRef{}, `scheme "" is not supported`},
	} {
		got, err := parseRootFS(row.raw)
		switch {
		case row.err == "" && err != nil:
			t.Errorf("%s: %v", row.raw, err)
		case row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)):
			t.Errorf("%s: error %v, want one with %q", row.raw, err, row.err)
		case got != row.want:
			t.Errorf("%s: got %+v, want %+v", row.raw, got, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the password: %v", row.raw, err)
		}
	}
}
