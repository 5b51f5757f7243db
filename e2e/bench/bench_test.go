//go:build bench

// Package bench_test measures Drover beside its peers, interleaved in one run on one machine.
//
//	make bench
//
// Peers are the programs on this machine's PATH; their versions are printed with the numbers, and versions of Debian 12
// are old. Every table says how many samples it stands on; one round of each peer follows the other, so that what else
// happens on the machine hits all of them.
package bench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// samples are durations of one peer.
type samples []time.Duration

func (s samples) at(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// report prints a table and the medians as metrics.
func report(b *testing.B, metric, title string, names []string, all map[string]samples) {
	b.Helper()
	var table strings.Builder
	fmt.Fprintf(&table, "\n%s\n  %-28s %6s %9s %9s %9s %9s\n", title, "", "n", "min", "p50", "p99", "max")
	for _, name := range names {
		s := all[name]
		if len(s) == 0 {
			continue
		}
		fmt.Fprintf(&table, "  %-28s %6d", name, len(s))
		for _, q := range []float64{0, 0.5, 0.99, 1} {
			fmt.Fprintf(&table, " %6.1f ms", ms(s.at(q)))
		}
		table.WriteByte('\n')
		b.ReportMetric(ms(s.at(0.5)), metric+"-"+strings.ReplaceAll(name, " ", "-")+"-p50-ms")
	}
	b.ReportMetric(0, "ns/op")    // says nothing here
	tell(b, "%s", table.String()) // the testing package cuts a benchmark's log after ten lines
}

// compare prints how the first one's median stands to the others'.
func compare(b *testing.B, names []string, all map[string]samples) {
	b.Helper()
	for _, name := range names[1:] {
		tell(b, "  %s takes %.2f × the time of %s\n", names[0], float64(all[names[0]].at(0.5))/float64(all[name].at(0.5)), name)
	}
}

func tell(b *testing.B, format string, args ...any) {
	b.Helper()
	if _, err := fmt.Fprintf(os.Stdout, format, args...); err != nil {
		b.Fatal(err)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// build makes one of our programs as `make build` does.
func build(b *testing.B, dir, pkg string) string {
	b.Helper()
	path := filepath.Join(dir, filepath.Base(pkg))
	cgo, args := "0", []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg}
	if strings.HasSuffix(pkg, "drover-shim") {
		cgo = "1"
		args = []string{"build", "-trimpath", "-tags", "seccomp,osusergo,netgo,static_build", "-ldflags", "-s -w -linkmode external -extldflags -static", "-o", path, pkg}
	}
	cmd := exec.CommandContext(b.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// openDir is b.TempDir with parents that a container's root can walk through.
func openDir(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// version is the first line that a program says of itself, or "" when it is not installed.
func version(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// setting is a number that the environment may change, to try a benchmark out on a busy machine.
func setting(b *testing.B, name string, usual int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return n
}
