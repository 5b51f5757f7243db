package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"drover": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Condition: func(condition string) (bool, error) {
			return condition == "root" && os.Geteuid() == 0, nil
		},
	})
}

func TestMegabytes(t *testing.T) {
	for text, want := range map[string]int32{"": 0, "256M": 256, "256MB": 256, "1g": 1024, "2GB": 2048} {
		if got, err := megabytes("memory", text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"256", "M", "-1M", "0M", "1T", "99999999999G"} {
		if got, err := megabytes("memory", text); err == nil {
			t.Errorf("%q became %d", text, got)
		}
	}
}
