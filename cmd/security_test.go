package cmd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurity holds SECURITY.md's table against the tests that there are.
func TestSecurity(t *testing.T) {
	t.Parallel()
	root := ".."
	raw, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 2 || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| case ") {
			continue
		}
		rows++
		var sources string
		for _, found := range word.FindAllStringSubmatch(cells[1], -1) {
			name := found[1]
			if strings.Contains(name, "/") {
				sources = testsIn(t, filepath.Join(root, name))
			} else if !strings.Contains(sources, "\nfunc "+name+"(") {
				t.Errorf("%s: there is no test %s", cells[0], name)
			}
		}
		if sources == "" {
			t.Errorf("%s: no package is named", cells[0])
		}
	}
	if rows < 20 {
		t.Errorf("the table has %d rows", rows)
	}
}

// testsIn is the text of a package's tests.
func testsIn(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("there are no tests in %s: %v", dir, err)
	}
	var text strings.Builder
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(raw)
	}
	return text.String()
}
