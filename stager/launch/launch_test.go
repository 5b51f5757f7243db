package launch_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/stager"
	"drover/stager/launch"
)

// home is a container's home with a droplet in it.
func home(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"app", "deps", "profile.d", "tmp", "logs"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run executes a command as the launcher would become it.
func run(t *testing.T, cmd *launch.Command) (string, int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), cmd.Path)
	c.Args, c.Env, c.Dir = cmd.Args, cmd.Env, cmd.Dir
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

func environment(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH")}, more...)
}

func TestApp(t *testing.T) {
	const messages = "Invoking pre-start scripts.\nInvoking start command.\n"
	for _, row := range []struct {
		promise, command string
		files            map[string]string
		want             string
		code             int
	}{
		{"the given command wins", "echo given", map[string]string{"staging_info.yml": `{"start_command":"echo own"}`}, messages + "given\n", 0},
		{"the droplet's own command", "", map[string]string{"staging_info.yml": `{"start_command":"echo own"}`}, messages + "own\n", 0},
		{"an old droplet's, in YAML", "", map[string]string{"staging_info.yml": "---\nstart_command: echo old\n"}, messages + "old\n", 0},
		{"the app's exit code", "exit 42", nil, messages, 42},
		{"shell syntax works", `for i in 1 2; do echo "$i $HOME"; done | sed "s|$HOME|HOME|"`, nil, messages + "1 HOME\n2 HOME\n", 0},
		{
			"scripts run in order, before the command", `echo "$ORDER"`,
			map[string]string{
				"profile.d/b.sh": "ORDER=$ORDER.b", "profile.d/a.sh": "export ORDER=a",
				"app/.profile.d/c.sh": "ORDER=$ORDER.c", "app/.profile": "ORDER=$ORDER.profile; echo from $PWD | sed 's|/.*/||'",
			},
			"Invoking pre-start scripts.\nfrom app\nInvoking start command.\na.b.c.profile\n", 0,
		},
		{
			"scripts cannot change the command", "echo command",
			map[string]string{"profile.d/a.sh": "set -- x y z; shift; cd /; for drover_file in q; do :; done", "profile.d/b.sh": "cd \"$HOME\""},
			messages + "command\n", 0,
		},
		{
			"an entrypoint prefix is given the command", "two words",
			map[string]string{"staging_info.yml": `{"start_command":"x","config":{"entrypoint_prefix":"echo"}}`}, messages + "two words\n", 0,
		},
	} {
		t.Run(row.promise, func(t *testing.T) {
			cwd := home(t, row.files)
			cmd, err := launch.App(cwd, "app", row.command, environment())
			if err != nil {
				t.Fatal(err)
			}
			got, code := run(t, cmd)
			if diff := cmp.Diff(row.want, got); diff != "" || code != row.code {
				t.Errorf("exit code %d, want %d (-want +got):\n%s", code, row.code, diff)
			}
		})
	}
}

func TestApp_environment(t *testing.T) {
	cwd := home(t, nil)
	cmd, err := launch.App(cwd, "app", "env", environment(
		"HOME=/root", "TMPDIR=/tmp", "INSTANCE_GUID=g", "INSTANCE_INDEX=3", "PORT=8080", `VCAP_APPLICATION={"name":"n"}`,
		`VCAP_PLATFORM_OPTIONS={"credhub-uri":"https://c"}`, `VCAP_SERVICES={"db":[{"credentials":{"uri":"postgresql://h"}}]}`,
	))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, cmd)
	lines := strings.Split(out, "\n")
	got := map[string]string{}
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok {
			got[name] = value
		}
	}
	delete(got, "PATH")
	delete(got, "SHLVL")
	delete(got, "_")
	want := map[string]string{
		"HOME": cwd + "/app", "PWD": cwd + "/app", "TMPDIR": cwd + "/tmp", "DEPS_DIR": cwd + "/deps", "OLDPWD": got["OLDPWD"],
		"INSTANCE_GUID": "g", "INSTANCE_INDEX": "3", "PORT": "8080", "DATABASE_URL": "postgres://h",
		"VCAP_APPLICATION": `{"host":"0.0.0.0","instance_id":"g","instance_index":3,"name":"n","port":8080}`,
		"VCAP_SERVICES":    `{"db":[{"credentials":{"uri":"postgresql://h"}}]}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestApp_refuses(t *testing.T) {
	for _, row := range []struct {
		promise string
		info    string
		env     []string
		code    stager.ExitCode
		says    string
	}{
		{"no command at all", `{}`, nil, stager.ExitError, "no start command"},
		{"a damaged droplet", `{"start_command":`, nil, stager.ExitError, "Invalid staging info"},
		{"bad platform options", `{"start_command":"x"}`, []string{"VCAP_PLATFORM_OPTIONS={"}, stager.ExitEnvironment, "platform options"},
		{
			"references to CredHub", `{"start_command":"x"}`,
			[]string{`VCAP_PLATFORM_OPTIONS={"credhub-uri":"u"}`, `VCAP_SERVICES={"a":[{"credentials":{"credhub-ref":"r"}}]}`}, stager.ExitEnvironment, "CredHub",
		},
	} {
		t.Run(row.promise, func(t *testing.T) {
			cwd := home(t, map[string]string{"staging_info.yml": row.info})
			_, err := launch.App(cwd, "app", "", environment(row.env...))
			if got := stager.CodeOf(err); got != row.code || err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("exit code %d, want %d: %v", got, row.code, err)
			}
		})
	}
}

func TestShell(t *testing.T) {
	cwd := home(t, map[string]string{"profile.d/a.sh": "export FROM=profile", "app/.profile": "export FROM=app"})
	cmd, err := launch.Shell(cwd, filepath.Join(cwd, "app"), `echo "$FROM $DEPS_DIR $PWD"`, environment())
	if err != nil {
		t.Fatal(err)
	}
	got, code := run(t, cmd)
	if want := "profile " + cwd + "/deps " + cwd + "/app\n"; got != want || code != 0 {
		t.Errorf("got %q, %d; want %q", got, code, want)
	}
}

func TestImage(t *testing.T) {
	work := t.TempDir()
	meta := func(rest string) string { return `{"workdir":"` + work + `",` + rest + `}` }
	for _, row := range []struct {
		promise, command, metadata string
		want                       string
		code                       int
	}{
		{"entrypoint and command", "", meta(`"entrypoint":["printf","%s|"],"cmd":["a b","c"]`), "a b|c|", 0},
		{"a command only", "", meta(`"cmd":["pwd"]`), work + "\n", 0},
		{"the app's own command, by a shell", "echo $((1+1)); exit 3", meta(`"cmd":["false"]`), "2\n", 3},
		{"a path needs no PATH", "", `{"cmd":["/bin/sh","-c","pwd"]}`, "/\n", 0},
	} {
		t.Run(row.promise, func(t *testing.T) {
			cmd, err := launch.Image(row.command, row.metadata, environment())
			if err != nil {
				t.Fatal(err)
			}
			got, code := run(t, cmd)
			if got != row.want || code != row.code {
				t.Errorf("got %q, %d; want %q, %d", got, code, row.want, row.code)
			}
		})
	}
}

func TestImage_keepsHome(t *testing.T) {
	cmd, err := launch.Image("echo $HOME $TMPDIR $VCAP_APPLICATION", "{}", environment("HOME=/root", `VCAP_APPLICATION={}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := run(t, cmd); got != `/root {"host":"0.0.0.0","instance_id":""}`+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestImage_findsProgramsByTheProcessesPath(t *testing.T) {
	work := t.TempDir()
	for _, name := range []string{"bin/tool", "tool"} {
		file := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o700); err != nil { //nolint:gosec // A program.
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ promise, argv0, path, want string }{
		{"in PATH", "tool", "/nowhere:" + work + "/bin", work + "/bin/tool"},
		{"in a PATH relative to the working directory", "tool", "bin", work + "/bin/tool"},
		{"by a relative path", "./tool", "/nowhere", work + "/tool"},
		{"without PATH, in the usual places", "sh", "", ""},
	} {
		cmd, err := launch.Image("", `{"workdir":"`+work+`","cmd":["`+row.argv0+`"]}`, []string{"PATH=" + row.path})
		if err != nil || (row.want != "" && cmd.Path != row.want) || cmd.Args[0] != row.argv0 {
			t.Errorf("%s: got %+v, %v; want %s", row.promise, cmd, err, row.want)
		}
	}
}

func TestImage_refuses(t *testing.T) {
	for _, row := range []struct {
		promise, metadata string
		code              stager.ExitCode
	}{
		{"metadata that is not JSON", "", stager.ExitError},
		{"nothing to run", "{}", stager.ExitError},
		{"a program that is not there", `{"cmd":["no-such-program"]}`, stager.ExitExec},
	} {
		if _, err := launch.Image("", row.metadata, environment()); stager.CodeOf(err) != row.code {
			t.Errorf("%s: got %d, want %d: %v", row.promise, stager.CodeOf(err), row.code, err)
		}
	}
}
