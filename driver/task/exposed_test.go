package task

import (
	"os"
	"path/filepath"
	"testing"
)

func TestExposed(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp") // which everybody can enter
	data := t.TempDir()
	if err := os.Chmod(filepath.Dir(data), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(data, "alloc", "a1b2")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode os.FileMode
		want bool
	}{{0o755, true}, {0o711, true}, {0o700, false}, {0o750, false}} {
		if err := os.Chmod(data, test.mode); err != nil {
			t.Fatal(err)
		}
		if got := exposed(dir); got != test.want {
			t.Errorf("with a data directory of mode %o: %v", test.mode, got)
		}
	}
	if exposed(filepath.Join(dir, "missing")) {
		t.Error("what is not there is exposed")
	}
}
