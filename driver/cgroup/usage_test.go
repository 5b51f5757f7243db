package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// used is what the files in testdata say, on both versions.
func used() Usage {
	return Usage{
		CPUTotal: 2500 * time.Millisecond, CPUUser: 2 * time.Second, CPUSystem: 500 * time.Millisecond,
		ThrottledPeriods: 7, MemoryUsage: 62 << 20, MemoryMax: 90 << 20, MemoryRSS: 40 << 20, MemoryCache: 24 << 20,
		MemorySwap: 4096,
	}
}

func TestMeter_v2(t *testing.T) {
	want := used()
	want.ThrottledTime = 123456 * time.Microsecond
	check(t, sourcesV2("testdata/v2"), want)
}

func TestMeter_v1(t *testing.T) {
	want := used()
	want.ThrottledTime = 123456789
	check(t, sourcesV1(func(name string) string { return filepath.Join("testdata/v1", name) }), want)
}

func check(t *testing.T, files []source, want Usage) {
	t.Helper()
	m, err := open(files)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for range 2 { // the files stay open
		if got, err := m.Read(); err != nil || !cmp.Equal(got, want) {
			t.Errorf("error %v, usage (-want +got):\n%s", err, cmp.Diff(want, got))
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Read() }); n > 0 {
		t.Errorf("a reading allocates %v times", n)
	}
}

func TestMeter_whatIsMissingIsZero(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "memory.current", "17\n")
	check(t, sourcesV2(dir), Usage{MemoryUsage: 17, MemoryMax: 17})
	if _, err := open(sourcesV2(t.TempDir())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group that is not there: %v", err)
	}
}

func TestMeter_whatIsMalformedIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"memory.current": "many", "cpu.stat": "usage_usec many", "memory.stat": "anon -1", "memory.peak": "", "memory.swap.current": "99999999999999999999",
	} {
		dir := t.TempDir()
		write(t, dir, name, text)
		m, err := open(sourcesV2(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Read(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
		m.Close()
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
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
