// Package seccomp reads seccomp profiles, in the form of the OCI's runtime spec or in Docker's, which has conditions.
//
// Parse takes what somebody wrote and refuses, by its place in the document, what it cannot honour: an unknown field, an
// action that asks a supervisor, an architecture that does not exist. Profile.For decides the conditions for one host and
// one container, and gives the spec that the runtime takes. Both are pure.
package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Limits of a profile. Docker's own has some 20 KiB and 30 rules.
const (
	MaxSize  = 256 << 10
	maxRules = 1024
	maxNames = 8192
	maxArgs  = 6
	maxErrno = 4095
)

// Profile is a profile that was read.
type Profile struct{ doc document }

// Host is what the conditions of a profile ask.
type Host struct {
	// Arch is the architecture as Go names it.
	Arch string
	// Kernel is the kernel's release, such as "6.1.0-18-amd64".
	Kernel string
	// Capabilities are those that the container's root has, as names such as CAP_CHOWN.
	Capabilities []string
}

type document struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet"`
	DefaultErrno     string                   `json:"defaultErrno"`
	Architectures    []specs.Arch             `json:"architectures"`
	ArchMap          []archMap                `json:"archMap"`
	Flags            []specs.LinuxSeccompFlag `json:"flags"`
	ListenerPath     string                   `json:"listenerPath"`
	ListenerMetadata string                   `json:"listenerMetadata"`
	Syscalls         []rule                   `json:"syscalls"`
}

type archMap struct {
	Architecture     specs.Arch   `json:"architecture"`
	SubArchitectures []specs.Arch `json:"subArchitectures"`
}

type rule struct {
	Name     string                   `json:"name"`
	Names    []string                 `json:"names"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet"`
	Errno    string                   `json:"errno"`
	Args     []specs.LinuxSeccompArg  `json:"args"`
	Comment  string                   `json:"comment"`
	Includes condition                `json:"includes"`
	Excludes condition                `json:"excludes"`
}

type condition struct {
	Arches    []string `json:"arches"`
	Caps      []string `json:"caps"`
	MinKernel string   `json:"minKernel"`
}

// Parse reads a profile.
func Parse(text []byte) (*Profile, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the profile is larger than %d bytes", MaxSize)
	}
	p := &Profile{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p.doc); err != nil {
		return nil, fmt.Errorf("not a profile: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a profile: something follows the document")
	}
	return p, p.doc.check()
}

func (d document) check() error {
	switch {
	case d.ListenerPath != "" || d.ListenerMetadata != "":
		return errors.New("listenerPath: there is no supervisor to ask")
	case len(d.Architectures) > 0 && len(d.ArchMap) > 0:
		return errors.New("architectures and archMap: only one of them may be given")
	case len(d.Syscalls) > maxRules:
		return fmt.Errorf("syscalls: %d rules are more than %d", len(d.Syscalls), maxRules)
	case d.DefaultErrno != "" && d.DefaultErrnoRet == nil:
		return errors.New("defaultErrno: needs defaultErrnoRet, its number")
	case d.DefaultErrnoRet != nil && *d.DefaultErrnoRet > maxErrno:
		return fmt.Errorf("defaultErrnoRet: %d is not an error number", *d.DefaultErrnoRet)
	}
	if err := checkAction("defaultAction", d.DefaultAction); err != nil {
		return err
	}
	for _, flag := range d.Flags {
		if !slices.Contains([]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}, flag) {
			return fmt.Errorf("flags: %q is not known; SECCOMP_FILTER_FLAG_LOG and SECCOMP_FILTER_FLAG_SPEC_ALLOW are", flag)
		}
	}
	for _, arch := range d.arches() {
		if !slices.Contains(architectures(), arch) {
			return fmt.Errorf("architectures: %q is not known; SCMP_ARCH_X86_64 would be", arch)
		}
	}
	names := 0
	for n, r := range d.Syscalls {
		if err := r.check(); err != nil {
			return fmt.Errorf("syscalls[%d]: %w", n, err)
		}
		if names += len(r.names()); names > maxNames {
			return fmt.Errorf("syscalls: more than %d names", maxNames)
		}
	}
	return nil
}

func (d document) arches() []specs.Arch {
	all := slices.Clone(d.Architectures)
	for _, m := range d.ArchMap {
		all = append(append(all, m.Architecture), m.SubArchitectures...)
	}
	return all
}

func (r rule) names() []string {
	if r.Name != "" {
		return []string{r.Name}
	}
	return r.Names
}

func (r rule) check() error {
	switch {
	case r.Name != "" && len(r.Names) > 0:
		return errors.New("name and names: only one of them may be given")
	case len(r.names()) == 0:
		return errors.New("names: must be given")
	case len(r.Args) > maxArgs:
		return fmt.Errorf("args: %d conditions are more than %d", len(r.Args), maxArgs)
	case r.Errno != "" && r.ErrnoRet == nil:
		return errors.New("errno: needs errnoRet, its number")
	case r.ErrnoRet != nil && *r.ErrnoRet > maxErrno:
		return fmt.Errorf("errnoRet: %d is not an error number", *r.ErrnoRet)
	}
	for _, arg := range r.Args {
		if arg.Index >= maxArgs {
			return fmt.Errorf("args: index %d must be below %d", arg.Index, maxArgs)
		}
		if !slices.Contains(operators(), arg.Op) {
			return fmt.Errorf("args: op %q is not known", arg.Op)
		}
	}
	for _, c := range []condition{r.Includes, r.Excludes} {
		if _, _, ok := version(c.MinKernel); c.MinKernel != "" && !ok {
			return fmt.Errorf("minKernel: %q is not a version such as \"4.8\"", c.MinKernel)
		}
	}
	return checkAction("action", r.Action)
}

func checkAction(field string, action specs.LinuxSeccompAction) error {
	switch action {
	case specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap, specs.ActErrno, specs.ActAllow, specs.ActLog:
		return nil
	case specs.ActNotify, specs.ActTrace:
		return fmt.Errorf("%s: %s needs a supervisor, and there is none", field, action)
	}
	return fmt.Errorf("%s: %q is not known; SCMP_ACT_ALLOW or SCMP_ACT_ERRNO would be", field, action)
}

func operators() []specs.LinuxSeccompOperator {
	return []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
}

func architectures() []specs.Arch {
	return []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchRISCV64,
	}
}

// native are the names of an architecture: Go's maps to seccomp's.
func native(arch string) (specs.Arch, bool) {
	name, ok := map[string]specs.Arch{
		"amd64": specs.ArchX86_64, "386": specs.ArchX86, "arm64": specs.ArchAARCH64, "arm": specs.ArchARM,
		"ppc64le": specs.ArchPPC64LE, "s390x": specs.ArchS390X, "riscv64": specs.ArchRISCV64,
	}[arch]
	return name, ok
}

// For returns the profile as it is on a host.
func (p *Profile) For(h Host) (*specs.LinuxSeccomp, error) {
	own, ok := native(h.Arch)
	if !ok {
		return nil, fmt.Errorf("no profiles are known for architecture %s", h.Arch)
	}
	spec := &specs.LinuxSeccomp{
		DefaultAction: p.doc.DefaultAction, DefaultErrnoRet: p.doc.DefaultErrnoRet, Flags: p.doc.Flags, Architectures: p.doc.Architectures,
	}
	for _, m := range p.doc.ArchMap {
		if m.Architecture == own {
			spec.Architectures = append([]specs.Arch{own}, m.SubArchitectures...)
		}
	}
	if len(p.doc.arches()) > 0 && !slices.Contains(spec.Architectures, own) {
		return nil, fmt.Errorf("the profile's architectures have no %s, which this node is", own)
	}
	for _, r := range p.doc.Syscalls {
		if r.applies(h) {
			spec.Syscalls = append(spec.Syscalls, specs.LinuxSyscall{Names: r.names(), Action: r.Action, ErrnoRet: r.ErrnoRet, Args: r.Args})
		}
	}
	return spec, nil
}

// applies decides a rule's conditions as Docker does: all that is included, and nothing that is excluded.
func (r rule) applies(h Host) bool {
	in, out := r.Includes, r.Excludes
	if len(in.Arches) > 0 && !slices.Contains(in.Arches, h.Arch) || slices.Contains(out.Arches, h.Arch) {
		return false
	}
	has := func(c string) bool { return slices.Contains(h.Capabilities, c) }
	for _, c := range in.Caps {
		if !has(c) {
			return false
		}
	}
	if slices.ContainsFunc(out.Caps, has) {
		return false
	}
	return (in.MinKernel == "" || atLeast(h.Kernel, in.MinKernel)) && (out.MinKernel == "" || !atLeast(h.Kernel, out.MinKernel))
}

func atLeast(kernel, wanted string) bool {
	major, minor, ok := version(kernel)
	a, b, _ := version(wanted)
	return ok && (major > a || major == a && minor >= b)
}

// version reads the first two numbers of a kernel's release.
func version(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, errA := strconv.Atoi(first)
	minor, errB := strconv.Atoi(rest[:end])
	return major, minor, errA == nil && errB == nil
}
