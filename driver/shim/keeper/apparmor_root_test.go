//go:build root

package keeper_test

import (
	"strings"
	"testing"

	"drover/driver"
	"drover/driver/apparmor"
	"drover/driver/shim"
)

// On a host with AppArmor, such as the virtual machine of `make test-vm`, containers are under the profile, and so is what is
// executed in them.
func TestAppArmor(t *testing.T) {
	host := &apparmor.Host{}
	if !host.Enabled() {
		t.Skip("this kernel has no AppArmor")
	}
	if err := host.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	security := driver.Security{AppArmor: apparmor.Profile}
	b := newBox(t, "then", "--", "cat", "/proc/self/attr/current", "--", "write", "/tmp/mine", "x", "--", "sleep", "60")
	b.wish.Security = security
	b.start()
	b.sees(b.out, apparmor.Profile+" (enforce)")
	if text := b.exec("cat", "/proc/self/attr/current"); !strings.Contains(text, apparmor.Profile+" (enforce)") {
		t.Errorf("an exec is under %s", text)
	}
	if err := b.client.Stop(t.Context(), "SIGTERM", 0); err != nil {
		t.Errorf("a container under the profile cannot be stopped: %v", err)
	}
	// The same writes succeed for a privileged container without the profile.
	for _, path := range []string{"/proc/sys/kernel/domainname", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		b := newBox(t, "write", path, "x")
		b.wish.IDs, b.wish.Seccomp, b.wish.Process.User = driver.IDRange{}, "off", "root"
		b.wish.Security = driver.Security{Privileged: true, AppArmor: apparmor.Profile}
		if exit := b.start().wait(); exit.Code != 1 {
			t.Errorf("%s is writable under the profile", path)
		}
		b.sees(b.errs, "permission denied")
	}
	b = newBox(t, "echo")
	b.wish.Security = driver.Security{AppArmor: "drover-there-is-none"}
	_, err := shim.Start(t.Context(), program, b.dir, b.wish)
	t.Cleanup(b.destroy)
	if err == nil {
		t.Error("a container starts without the profile that it is to have")
	}
}
