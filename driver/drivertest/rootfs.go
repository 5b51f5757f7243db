package drivertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"drover/driver"
)

// ProbePackage is the import path of the program that RootFS installs as /bin/probe.
const ProbePackage = "drover/driver/drivertest/probe"

// BuildProgram builds a main package as a static program and returns its path. The package is an import path of this
// module, or a path relative to the test's directory. Everybody may read and traverse the directory it is in.
func BuildProgram(t testing.TB, pkg string) string {
	t.Helper()
	target := filepath.Join(openDir(t), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", target, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return target
}

// openDir is t.TempDir with parents that another user can traverse: the testing package makes them private.
func openDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// RootFS makes a plain directory that can be a container's root file system: users root and vcap (2000), /home/vcap,
// /tmp, the usual mount points, and /bin/probe. Owned by host ids, so that Stored is zero. Chowning /home/vcap to vcap
// needs root and is left out without it.
func RootFS(t testing.TB) []driver.Layer {
	t.Helper()
	root := filepath.Join(openDir(t), "rootfs")
	for _, dir := range []string{"", "bin", "dev", "etc", "home", "home/vcap", "proc", "root", "run", "sys", "usr", "var"} {
		mkdir(t, filepath.Join(root, dir), 0o755)
	}
	mkdir(t, filepath.Join(root, "tmp"), 0o777|os.ModeSticky)
	for _, entry := range users() {
		if err := os.WriteFile(filepath.Join(root, entry.Name), entry.Body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(root, "home/vcap"), driver.VcapID, driver.VcapID); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(BuildProgram(t, ProbePackage), filepath.Join(root, "bin/probe")); err != nil {
		t.Fatal(err)
	}
	return []driver.Layer{{Dir: root}}
}

// users are the files that name root and vcap.
func users() []Entry {
	return []Entry{
		File("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/probe\nvcap:x:2000:2000::/home/vcap:/bin/probe\nnobody:x:65534:65534::/:/bin/probe\n"),
		File("etc/group", 0o644, "root:x:0:\nvcap:x:2000:\nextra:x:3000:vcap\nnogroup:x:65534:\n"),
		File("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
		File("etc/resolv.conf", 0o644, ""),
	}
}

func mkdir(t testing.TB, dir string, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}
