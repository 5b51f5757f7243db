package seccomp

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParse_refuses(t *testing.T) {
	for _, test := range []struct{ promise, text, says string }{
		{"what is no JSON", `{`, "not a profile"},
		{"a second document", `{"defaultAction":"SCMP_ACT_ALLOW"}{}`, "something follows"},
		{"an unknown field, by name", `{"defaultAction":"SCMP_ACT_ALLOW","default":1}`, `"default"`},
		{"no default", `{}`, "defaultAction"},
		{"an unknown action", `{"defaultAction":"ALLOW"}`, `"ALLOW"`},
		{"a supervisor's action", `{"defaultAction":"SCMP_ACT_NOTIFY"}`, "supervisor"},
		{"a supervisor", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`, "listenerPath"},
		{"an unknown architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["VAX"]}`, `"VAX"`},
		{"two lists of architectures", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}`, "only one"},
		{"an unknown flag", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}`, `"X"`},
		{"a rule without names", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}`, "syscalls[0]: names"},
		{"a rule with both kinds of names", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}`, "only one"},
		{"a seventh argument", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}`, "index 6"},
		{"an unknown comparison", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"=="}]}]}`, `"=="`},
		{"a strange kernel", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}]}`, "minKernel"},
		{"a huge error number", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}`, "defaultErrnoRet"},
		{"a huge one", strings.Repeat(" ", MaxSize+1), "larger"},
		{"too many rules", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + strings.Repeat(`{},`, maxRules) + `{}]}`, "rules"},
	} {
		t.Run(test.promise, func(t *testing.T) {
			if _, err := Parse([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error is %v, want one with %q", err, test.says)
			}
		})
	}
}

const conditional = `{
  "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "EPERM",
  "archMap": [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}
  ],
  "syscalls": [
    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "all"},
    {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
    {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}}
  ]
}`

func TestProfile_For(t *testing.T) {
	p, err := Parse([]byte(conditional))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		promise string
		host    Host
		arches  []specs.Arch
		allowed string
	}{
		{"an old host without rights", Host{Arch: "arm64", Kernel: "4.4.0"}, []specs.Arch{specs.ArchAARCH64, specs.ArchARM}, "read clone"},
		{"a new one", Host{Arch: "amd64", Kernel: "6.1.0-18-amd64"}, []specs.Arch{specs.ArchX86_64, specs.ArchX86}, "read arch_prctl clone ptrace"},
		{
			"one that may mount", Host{Arch: "amd64", Kernel: "4.10", Capabilities: []string{"CAP_SYS_ADMIN"}},
			[]specs.Arch{specs.ArchX86_64, specs.ArchX86}, "read arch_prctl mount ptrace",
		},
	} {
		t.Run(test.promise, func(t *testing.T) {
			spec, err := p.For(test.host)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, call := range spec.Syscalls {
				names = append(names, call.Names...)
			}
			if got := strings.Join(names, " "); got != test.allowed || !slices.Equal(spec.Architectures, test.arches) || *spec.DefaultErrnoRet != 1 {
				t.Errorf("got %s on %v, want %s on %v", got, spec.Architectures, test.allowed, test.arches)
			}
		})
	}
}

func TestProfile_For_anotherArchitecture(t *testing.T) {
	p, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.For(Host{Arch: "amd64", Kernel: "6.1"}); err == nil || !strings.Contains(err.Error(), "SCMP_ARCH_X86_64") {
		t.Errorf("error is %v", err)
	}
}
