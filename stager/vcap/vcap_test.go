package vcap_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/stager"
	"drover/stager/vcap"
)

func TestPrepare_databaseURL(t *testing.T) {
	service := func(uri string) string {
		return `{"some":[{"credentials":{}},{"credentials":{"uri":12}}],"db":[{"name":"x","credentials":{"uri":"` + uri + `"}}]}`
	}
	for _, row := range []struct{ promise, services, want string }{
		{"mysql becomes mysql2", service("mysql://u:p@h/d?x=1#y"), "mysql2://u:p@h/d?x=1#y"},
		{"mysql2 stays", service("mysql2://h"), "mysql2://h"},
		{"postgres stays", service("postgres://h"), "postgres://h"},
		{"postgresql becomes postgres", service("postgresql://h"), "postgres://h"},
		{"others are no database", service("redis://h"), "mine"},
		{"a uri without scheme is none", service("h/d"), "mine"},
		{"the first in the text wins", `{"z":[{"credentials":{"uri":"mysql://1"}}],"a":[{"credentials":{"uri":"mysql://2"}}]}`, "mysql2://1"},
		{"labels of other shapes are skipped", `{"a":"x","b":{"c":1},"db":[{"credentials":{"uri":"mysql://1"}}]}`, "mysql2://1"},
		{"no services change nothing", "", "mine"},
		{"malformed services change nothing", `{"a":[`, "mine"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			env, err := vcap.Prepare([]string{"DATABASE_URL=mine", "VCAP_SERVICES=" + row.services})
			if err != nil {
				t.Fatal(err)
			}
			if got := vcap.Get(env, "DATABASE_URL"); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestPrepare_platformOptions(t *testing.T) {
	const ref = `VCAP_SERVICES={"x":[{"credentials":{"credhub-ref":"/c"}}]}`
	for _, row := range []struct {
		promise string
		env     []string
		code    stager.ExitCode
	}{
		{"none", []string{ref}, stager.ExitOK},
		{"no reference to resolve", []string{`VCAP_PLATFORM_OPTIONS={"credhub-uri":"https://c"}`, `VCAP_SERVICES={}`}, stager.ExitOK},
		{"nobody promised to resolve", []string{`VCAP_PLATFORM_OPTIONS={}`, ref}, stager.ExitOK},
		{"a reference is refused", []string{`VCAP_PLATFORM_OPTIONS={"credhub-uri":"https://c"}`, ref}, stager.ExitCredHub},
		{"bad options", []string{`VCAP_PLATFORM_OPTIONS=secret{`}, stager.ExitEnvironment},
	} {
		t.Run(row.promise, func(t *testing.T) {
			env, err := vcap.Prepare(row.env)
			if got := stager.CodeOf(err); got != row.code {
				t.Fatalf("got %d, want %d: %v", got, row.code, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes the options: %v", err)
			}
			if got := vcap.Get(env, "VCAP_PLATFORM_OPTIONS"); got != "" {
				t.Errorf("the options reach the app: %q", got)
			}
		})
	}
}

func TestApplication(t *testing.T) {
	env := []string{"INSTANCE_GUID=g", "PORT=8080", "INSTANCE_INDEX=2"}
	for _, row := range []struct{ promise, before, after string }{
		{
			"an instance knows its place", `{"name":"a<b","limits":{"mem":12345678901234567890}}`,
			`{"host":"0.0.0.0","instance_id":"g","instance_index":2,"limits":{"mem":12345678901234567890},"name":"a<b","port":8080}`,
		},
		{"no JSON stays", "x", "x"},
		{"null stays", "null", "null"},
		{"two values stay", "{} {}", "{} {}"},
		{"a list stays", "[1]", "[1]"},
	} {
		got := vcap.Get(vcap.Application(append([]string{"VCAP_APPLICATION=" + row.before}, env...)), "VCAP_APPLICATION")
		if diff := cmp.Diff(row.after, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.promise, diff)
		}
	}
	if diff := cmp.Diff(env, vcap.Application(env)); diff != "" {
		t.Errorf("without VCAP_APPLICATION nothing changes (-want +got):\n%s", diff)
	}
	got := vcap.Get(vcap.Application([]string{`VCAP_APPLICATION={}`, "PORT=none"}), "VCAP_APPLICATION")
	if diff := cmp.Diff(`{"host":"0.0.0.0","instance_id":""}`, got); diff != "" {
		t.Errorf("a task has no port and index (-want +got):\n%s", diff)
	}
}

func TestSet_leavesTheInputAlone(t *testing.T) {
	env := []string{"A=1", "B=2", "A=3"}
	if got := vcap.Get(env, "A"); got != "3" {
		t.Errorf("the last entry counts: got %q", got)
	}
	got := vcap.Set(env, "A", "4")
	if diff := cmp.Diff([]string{"B=2", "A=4"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"A=1", "B=2", "A=3"}, env); diff != "" {
		t.Errorf("the input changed (-want +got):\n%s", diff)
	}
}
