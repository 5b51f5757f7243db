package shim

import (
	"os"
	"path/filepath"
	"testing"
)

// A container whose allocation cannot be seen, because a disk is not mounted, is not forgotten.
func TestRemains_allocDirExists(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "alloc", "a1"), 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{
		"alloc/a1": true, "alloc/a2": false, "elsewhere/a1": true, "": true,
	} {
		remains := Remains{AllocDir: dir}
		if dir != "" {
			remains.AllocDir = filepath.Join(data, dir)
		}
		if got := remains.AllocDirExists(); got != want {
			t.Errorf("%q exists: %v", dir, got)
		}
	}
}
