package driver

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite CONFORMANCE.md")

// dirs are where tests of lines are.
func dirs() []string { return []string{".", ".."} }

// elsewhere are lines' tests that have names of their own.
func elsewhere() map[int][2]string {
	return map[int][2]string{
		49: {"../driver_matrix_test.go", "TestDriver_killMatrix"},
		53: {"../plugin_forgotten_test.go", "TestPlugin_forgotten"},
		58: {"../conformance/exec_test.go", "TestExecStreaming"},
		59: {"../plugin_image_test.go", "TestPlugin_collection"},
	}
}

var numbered = regexp.MustCompile(`^([0-9]{1,2}) `)

// TestTable keeps CONFORMANCE.md equal to the tests that there are.
func TestTable(t *testing.T) {
	tests := map[int][]string{}
	for _, dir := range dirs() {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			collect(t, file, tests)
		}
	}
	for n, test := range elsewhere() {
		raw, err := os.ReadFile(test[0])
		if err != nil || !strings.Contains(string(raw), "\nfunc "+test[1]+"(") {
			t.Errorf("there is no %s in %s: %v", test[1], test[0], err)
		}
		tests[n] = append(tests[n], where(test[0], test[1]))
	}
	var b strings.Builder
	b.WriteString("# Conformance\n\nWhat the driver is held to, and by which tests; made by `go test ./e2e/driver -update`. All run the real plugin binary.\n\n" +
		"| | line | tests |\n|---|---|---|\n")
	for i, line := range Lines() {
		found := tests[i+1]
		if len(found) == 0 {
			t.Errorf("line %d has no test: %s", i+1, line)
		}
		slices.Sort(found)
		fmt.Fprintf(&b, "| %d | %s | %s |\n", i+1, line, strings.Join(slices.Compact(found), "<br>"))
	}
	for n := range tests {
		if n < 1 || n > len(Lines()) {
			t.Errorf("%v is a test of line %d, which there is not", tests[n], n)
		}
	}
	if *update {
		if err := os.WriteFile("CONFORMANCE.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile("CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), b.String()); diff != "" {
		t.Errorf("CONFORMANCE.md is not what the tests say (-update rewrites it):\n%s", diff)
	}
}

// collect notes the subtests of a file whose names begin with a line's number.
func collect(t *testing.T, path string, tests map[int][]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		function, ok := decl.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(function.Name.Name, "Test") {
			continue
		}
		ast.Inspect(function, func(node ast.Node) bool {
			name, ok := subtest(node)
			if !ok {
				return true
			}
			if m := numbered.FindStringSubmatch(name); m != nil {
				n, _ := strconv.Atoi(m[1]) // digits, by the expression
				tests[n] = append(tests[n], where(path, function.Name.Name+"/"+name[len(m[0]):]))
			}
			return true
		})
	}
}

func where(path, test string) string {
	return fmt.Sprintf("`%s`: %s", filepath.ToSlash(filepath.Clean(filepath.Join("e2e/driver", path))), test)
}

// subtest returns the name of a call of t.Run that has a literal one.
func subtest(node ast.Node) (string, bool) {
	call, ok := node.(*ast.CallExpr)
	if !ok || len(call.Args) != 2 {
		return "", false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || method.Sel.Name != "Run" {
		return "", false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	name, err := strconv.Unquote(literal.Value)
	return name, err == nil
}
