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
func BuildProgram(tb testing.TB, pkg string) string {
	tb.Helper()
	target := filepath.Join(openDir(tb), filepath.Base(pkg))
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", target, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return target
}

// openDir is tb.TempDir with parents that another user can traverse: the testing package makes them private.
func openDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// RootFS makes a plain directory that can be a container's root file system: users root and vcap (2000), /home/vcap,
// /tmp, the usual mount points, and /bin/probe. Owned by host ids, so that Stored is zero. Chowning /home/vcap to vcap
// needs root and is left out without it.
func RootFS(tb testing.TB) []driver.Layer {
	tb.Helper()
	root := filepath.Join(openDir(tb), "rootfs")
	for _, dir := range []string{"", "bin", "dev", "etc", "home", "home/vcap", "proc", "root", "run", "sys", "usr", "var"} {
		mkdir(tb, filepath.Join(root, dir), 0o755)
	}
	mkdir(tb, filepath.Join(root, "tmp"), 0o777|os.ModeSticky)
	for _, entry := range users() {
		if err := os.WriteFile(filepath.Join(root, entry.Name), entry.Body, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(root, "home/vcap"), driver.VcapID, driver.VcapID); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Rename(BuildProgram(tb, ProbePackage), filepath.Join(root, "bin/probe")); err != nil {
		tb.Fatal(err)
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

func mkdir(tb testing.TB, dir string, mode os.FileMode) {
	tb.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		tb.Fatal(err)
	}
}
