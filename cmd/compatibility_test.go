package cmd_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"drover/bridge/bbs"
	"drover/driver/plugin"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the generated tables of the documents")

// TestCompatibility keeps the generated tables of COMPATIBILITY.md equal to what the code says of itself.
func TestCompatibility(t *testing.T) {
	raw, err := os.ReadFile("../COMPATIBILITY.md")
	if err != nil {
		t.Fatal(err)
	}
	fields, err := os.ReadFile("../bridge/translate/testdata/fields.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(raw)
	want := replaceTable(t, document, "bbs routes", routesTable())
	want = replaceTable(t, want, "fields", string(fields))
	if diff := cmp.Diff(document, want); diff != "" && !*update {
		t.Fatalf("COMPATIBILITY.md is not what the code says (make golden rewrites it):\n%s", diff)
	}
	if *update {
		if err := os.WriteFile("../COMPATIBILITY.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func routesTable() string {
	var b strings.Builder
	b.WriteString("| route | method and path | state |\n|---|---|---|\n")
	for _, route := range bbs.Routes() {
		fmt.Fprintf(&b, "| %s | `%s %s` | %s |\n", route.Name, route.Method, route.Path, route.State)
	}
	return b.String()
}

// TestCompatibility_options keeps README.md's tables of options equal to the schemas that Nomad gets.
func TestCompatibility_options(t *testing.T) {
	raw, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(raw)
	want := replaceTable(t, document, "task options", plugin.Table(plugin.TaskOptions()))
	want = replaceTable(t, want, "plugin options", plugin.Table(plugin.NodeOptions()))
	if diff := cmp.Diff(document, want); diff != "" && !*update {
		t.Fatalf("README.md is not what the schemas say (make golden rewrites it):\n%s", diff)
	}
	if *update {
		if err := os.WriteFile("../README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// replaceTable puts a table between the two comments that name it.
func replaceTable(t *testing.T, document, name, table string) string {
	t.Helper()
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, found := strings.Cut(document, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("the document lacks %q or %q", begin, end)
	}
	return before + begin + table + end + after
}
