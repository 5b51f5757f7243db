//go:build bench

package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/bundle"
	"drover/driver/drivertest"
	"drover/driver/shim"
)

const (
	containerRounds = 7
	containerEach   = 10
)

// BenchmarkStartWarm measures one container from nothing to nothing: create, run a program that ends at once, learn its
// exit status, remove everything. All have a user namespace, seccomp, cgroups with limits, and our OCI spec. Ours also
// mounts an overlay over id-mapped layers and leaves an exit status on disk (fsync); the peers get a directory that was
// chowned beforehand.
func BenchmarkStartWarm(b *testing.B) {
	hideUnified(b)
	dir := openDir(b)
	// Not above the containers' state, where no installation has it: libcontainer would copy it for each container.
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	container := benchContainer(drivertest.RootFS(b))
	container.Filters = filepath.Join(dir, "filters")
	peers := map[string]func(id string) error{
		"drover-shim": func(id string) error { return startShim(b.Context(), shimPath, filepath.Join(dir, id), id, container) },
	}
	names := []string{"drover-shim"}
	for _, peer := range []string{"runc", "crun"} {
		v := version(b.Context(), peer)
		if v == "" {
			b.Logf("%s is not installed", peer)
			continue
		}
		where := ociBundle(b, container)
		run := []string{peer, "run", "--bundle", where}
		names = append(names, v)
		peers[v] = func(id string) error { return startOCI(b.Context(), run, id) }
	}
	all := map[string]samples{}
	for round := range containerRounds {
		for _, name := range names {
			for n := range containerEach {
				began := time.Now()
				if err := peers[name](fmt.Sprintf("bench-%d-%d-%d", os.Getpid(), round, n)); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
				if round > 0 { // the first round warms the caches
					all[name] = append(all[name], time.Since(began))
				}
			}
		}
	}
	report(b, "start", "start-warm: create, run, exit, destroy", names, all)
	compare(b, names, all)
}

// hideUnified takes the unified hierarchy of a hybrid host out of this benchmark's sight: Debian 12's crun refuses to
// run beside it.
func hideUnified(b *testing.B) {
	b.Helper()
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified); err != nil {
		return
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the benchmark
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		b.Fatalf("unshare: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		b.Fatalf("make mounts private: %v", err)
	}
	if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
		b.Fatalf("unmount %s: %v", unified, err)
	}
}

func benchContainer(layers []driver.Layer) driver.Container {
	return driver.Container{
		Hostname: "bench", RootFS: driver.RootFS{Layers: layers}, IDs: driver.IDRange{Host: 1 << 30, Size: 1 << 16},
		Limits: driver.Limits{MemoryBytes: 64 << 20, CPUShares: 100, PIDs: 64, NoFile: 1024},
		Stdout: os.DevNull, Stderr: os.DevNull, Seccomp: "default",
		Process: driver.Process{Args: []string{"/bin/probe", "exit", "0"}, Env: []string{"PATH=/bin"}, Dir: "/"},
	}
}

func startShim(ctx context.Context, shimPath, dir, id string, c driver.Container) error {
	c.ID = id
	client, err := shim.Start(ctx, shimPath, dir, c)
	if err != nil {
		return err
	}
	exit, err := client.Wait(ctx)
	if err == nil && exit.Code != 0 {
		err = fmt.Errorf("exit status %d", exit.Code)
	}
	if err != nil {
		return err
	}
	_ = client.Close()
	return shim.Destroy(ctx, dir)
}

// ociBundle makes a bundle of the same container for a runtime's command line.
func ociBundle(b *testing.B, c driver.Container) string {
	b.Helper()
	where := openDir(b)
	rootfs := filepath.Join(where, "rootfs")
	if out, err := exec.CommandContext(b.Context(), "cp", "-a", c.RootFS.Layers[0].Dir, rootfs).CombinedOutput(); err != nil {
		b.Fatalf("copy root file system: %v\n%s", err, out)
	}
	err := filepath.WalkDir(rootfs, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(c.IDs.Host), int(c.IDs.Host))
	})
	if err != nil {
		b.Fatal(err)
	}
	c.ID = "bench"
	spec, err := bundle.Spec(c, bundle.Facts{
		Rootfs: rootfs, User: bundle.User{Name: "root", Home: "/root"}, WorkDir: "/", Capabilities: boundingSet(b),
		HardLimits: map[string]uint64{"nofile": 4096}, Arch: runtime.GOARCH, CgroupPath: "/drover-bench", Sys: "/sys",
	})
	if err != nil {
		b.Fatal(err)
	}
	spec.Version = "1.0.2" // Debian 12's crun knows no later one
	for i, m := range spec.Mounts {
		if m.Destination == "/sys" { // ours comes from a sysfs that the shim mounts; without it a user namespace must bind the host's
			spec.Mounts[i] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
		}
	}
	raw, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(where, "config.json"), raw, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(where, 0o711); err != nil {
		b.Fatal(err)
	}
	return where
}

func boundingSet(b *testing.B) []string {
	b.Helper()
	caps, err := capability.NewPid2(0)
	if err == nil {
		err = caps.Load()
	}
	if err != nil {
		b.Fatal(err)
	}
	var names []string
	for _, c := range capability.ListKnown() {
		if caps.Get(capability.BOUNDING, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names
}

func startOCI(ctx context.Context, run []string, id string) error {
	out, err := exec.CommandContext(ctx, run[0], append(slices.Clone(run[1:]), id)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
