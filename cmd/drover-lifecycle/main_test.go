package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary the programs that the scripts call.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"builder": main, "launcher": main, "shell": main, "healthcheck": main, "diego-sshd": main,
		"docker-builder": main, "docker-launcher": main, "drover-lifecycle": main,
	})
}

// TestScripts runs testdata/script: what each program takes, refuses, and answers.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			here, err := os.Getwd()
			if err != nil {
				return err
			}
			env.Setenv("BUILDPACKS", filepath.Join(here, "..", "..", "stager", "build", "testdata", "buildpacks"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE PROGRAM [ARG…]: the program ends with that code. Output is in stdout and stderr.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program [arg…]")
	}
	script := `"$@"; code=$?; test "$code" = ` + args[0] + ` || { echo "exit code $code, want ` + args[0] + `" >&2; exit 99; }`
	ts.Check(ts.Exec("sh", append([]string{"-c", script, "sh"}, args[1:]...)...))
}
