package cgroup

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// used is what the files in testdata say, on both versions.
func used() Usage {
	return Usage{
		CPUTotal: 2500 * time.Millisecond, CPUUser: 2 * time.Second, CPUSystem: 500 * time.Millisecond,
		ThrottledPeriods: 7, MemoryUsage: 70 << 20, MemoryMax: 90 << 20, MemoryRSS: 40 << 20, MemoryCache: 24 << 20,
		MemorySwap: 4096, PIDs: 9, OOMKills: 1,
	}
}

func TestUsage_v2(t *testing.T) {
	want := used()
	want.ThrottledTime, want.MemoryLimit = 123456*time.Microsecond, 128<<20
	got, err := usageV2(os.DirFS("testdata/v2"))
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("error %v, usage (-want +got):\n%s", err, cmp.Diff(want, got))
	}
}

func TestUsage_v1(t *testing.T) {
	want := used()
	want.ThrottledTime = 123456789 // and no limit: v1 writes a number near the largest
	got, err := usageV1(func(name string) fs.FS { return os.DirFS(filepath.Join("testdata/v1", name)) })
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("error %v, usage (-want +got):\n%s", err, cmp.Diff(want, got))
	}
}

func TestUsage_whatIsMissingIsZero(t *testing.T) {
	got, err := usageV2(fstest.MapFS{"memory.current": {Data: []byte("17\n")}, "memory.max": {Data: []byte("max\n")}})
	if want := (Usage{MemoryUsage: 17, MemoryMax: 17}); err != nil || got != want {
		t.Errorf("error %v, usage %+v, want %+v", err, got, want)
	}
}

func TestUsage_whatIsMalformedIsAnError(t *testing.T) {
	for name, file := range map[string]string{"memory.current": "many", "cpu.stat": "usage_usec many", "memory.events": "oom_kill -1"} {
		_, err := usageV2(fstest.MapFS{name: {Data: []byte(file)}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestAt(t *testing.T) {
	for path, ok := range map[string]bool{
		"/nomad/a.b": true, "nomad.slice/share.slice/x.scope": true, "": false, "/": false, "/nomad/../..": false, "..": false,
	} {
		if _, err := At(path); (err == nil) != ok {
			t.Errorf("At(%q): %v", path, err)
		}
	}
}
