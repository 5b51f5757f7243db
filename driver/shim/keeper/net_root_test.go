//go:build root

package keeper_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"golang.org/x/sys/unix"

	"drover/driver"
)

// newNetNS makes a network namespace, as Nomad does, with one address on its loopback device, and returns its path.
func newNetNS(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and no unlock: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", "192.0.2.9/32", "dev", "lo"}} {
			if err == nil {
				err = exec.CommandContext(tb.Context(), "ip", args...).Run()
			}
		}
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
	return path
}

func TestNetwork_isTheNamespaceGiven(t *testing.T) {
	b := newBox(t, "then", "--", "ls", "/sys/class/net", "--", "cat", "/proc/net/dev", "--", "listen", "80")
	b.wish.NetNS = newNetNS(t)
	b.start()
	b.sees(b.out, "lo:")
	if strings.Contains(b.out.String(), "eth") {
		t.Errorf("the host's devices are seen:\n%s", b.out)
	}
	eventually(t, func() (bool, string) { // vcap may listen at a low port
		return strings.Contains(b.exec("get", "http://192.0.2.9:80/"), "hello"), b.errs.String()
	})
}

func TestNetwork_checksAreMadeInside(t *testing.T) {
	b := lrpBox(t, models.DesiredLRP{
		Action:          models.WrapAction(probe("APP", "listen", "8080")),
		CheckDefinition: &models.CheckDefinition{Checks: []*models.Check{{HttpCheck: &models.HTTPCheck{Port: 8080, Path: "/"}}}},
		StartTimeoutMs:  15_000,
	})
	b.wish.NetNS = newNetNS(t)
	b.start()
	events, err := b.client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{driver.PhaseStarted, driver.PhaseHealthy} {
		if e := <-events; e.Phase != want {
			t.Fatalf("event is %+v, want %s", e, want)
		}
	}
}

func TestEtc_overLinksThatImagesHave(t *testing.T) {
	b := newBox(t, "cat", "/etc/resolv.conf")
	b.wish.ResolvConf = "nameserver 192.0.2.1\n"
	b.replaceByLink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
	if !b.tryToRun() {
		t.Fatal("it does not run")
	}
	b.sees(b.out, "192.0.2.1")
}
