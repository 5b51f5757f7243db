package demo

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTraces_knowsWhatIsOurs(t *testing.T) {
	ours := &traces{dirs: []string{"/home/me/.drover/demo-1"}}
	ours.add("1f2e3d4c-0000-0000-0000-000000000000")
	ours.add("1f2e3d4c-0000-0000-0000-000000000000")
	for text, want := range map[string]bool{
		"tmpfs /home/me/.drover/demo-1/agents/nomad/alloc/x/app/secrets tmpfs rw": true,
		"/sys/fs/cgroup/memory/nomad/1f2e3d4c-0000-0000-0000-000000000000.app":    true,
		"drover-shim run /var/lib/drover/state/tasks/t-1f2e3d4c-app-0123":         true,
		"tmpfs /home/me/.drover/dev/agents tmpfs rw":                              false,
		"": false,
	} {
		if got := ours.in(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if len(ours.allocs) != 1 {
		t.Errorf("an allocation was noted %d times", len(ours.allocs))
	}
}

func TestTraces_leavesOutOurselves(t *testing.T) {
	// Our own command line bears the mark of the test's program.
	ours := &traces{dirs: []string{os.Args[0]}}
	if !ours.in(readText("/proc/self/cmdline")) {
		t.Fatal("our own command line bears no mark")
	}
	self := strconv.Itoa(os.Getpid()) + " "
	for _, process := range ours.processes() {
		if strings.HasPrefix(process, self) {
			t.Errorf("our own process is a leftover: %s", process)
		}
	}
}

func TestFirst(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tnode\nNSpid:\t5123\t1\nNSpgid:\t5123\t1\n": true,
		"Name:\tnode\nNSpid:\t5123\t7\n":                   false,
		"Name:\tinit\nNSpid:\t1\n":                         false,
		"":                                                 false,
	} {
		if got := first(status); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}

func TestAwait(t *testing.T) {
	looks := 0
	err := await(t.Context(), time.Minute, "it does not come", func() (bool, error) {
		looks++
		return looks == 2, nil
	})
	if err != nil || looks != 2 {
		t.Errorf("%v after %d looks", err, looks)
	}
	err = await(t.Context(), time.Millisecond, "it does not come", func() (bool, error) { return false, nil })
	if err == nil || !strings.Contains(err.Error(), "it does not come") {
		t.Errorf("got %v", err)
	}
}
