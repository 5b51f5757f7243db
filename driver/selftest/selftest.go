// Package selftest finds out whether this node can run containers, by running one.
//
// Run starts a container through the shim, as a task is started, from a layer that it makes beside the images, and
// looks at it from both sides: a process in it says what it sees (Inside, the shim's self-test command), and the host
// says which limits hold. It signals the container to its end and removes everything. What is found to be missing is an
// error that names the cause and, where there is one, the cure.
//
// A kernel's release or a sysctl can only hint at what works: distributions backport, outer containers forbid, file
// systems differ. So the node's attributes are what a container was seen to have.
package selftest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/shim"
)

// Limit bounds a whole self-test.
const Limit = 30 * time.Second

// Limits of the container, which the host must be seen to enforce.
const (
	memoryLimit = 64 << 20
	pidsLimit   = 32
)

// program is where the shim's own program is in the container.
const program = "/.drover/shim"

// Options say what Run tries.
type Options struct {
	// StateDir and ImageDir are the operator's: the container's state is made below the first, its layer below the other.
	StateDir, ImageDir string
	// Shim is the path of drover-shim.
	Shim string
	// IDs is a range of host ids that no task has.
	IDs driver.IDRange
	// Seccomp is "default" or "off".
	Seccomp string
}

// Result is what a container on this node was seen to have.
type Result struct {
	UserNS  bool `json:"userns"`
	IDMap   bool `json:"idmap"`
	Seccomp bool `json:"seccomp"`
	// Took is how long it took to run it.
	Took time.Duration `json:"took"`
}

// Run runs the container. It must not be called twice at a time for one StateDir.
func Run(ctx context.Context, o Options) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	began := time.Now()
	dir := filepath.Join(o.StateDir, "self-test")
	layer := filepath.Join(o.ImageDir, "self-test")
	if err := clear(dir, layer); err != nil { // of one that was interrupted
		return Result{}, err
	}
	r, err := run(ctx, o, dir, layer)
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end in %s: %w", Limit, errors.Join(err, ctx.Err()))
	}
	err = errors.Join(err, clear(dir, layer))
	r.Took = time.Since(began).Round(time.Millisecond)
	return r, err
}

// clear removes what a self-test leaves, whatever the state it is in.
func clear(dir, layer string) error {
	if err := shim.Destroy(context.Background(), dir); err != nil {
		return fmt.Errorf("remove the self-test's container: %w", err)
	}
	if err := os.RemoveAll(layer); err != nil {
		return fmt.Errorf("remove the self-test's layer: %w", err)
	}
	return nil
}

func run(ctx context.Context, o Options, dir, layer string) (Result, error) {
	if err := makeLayer(layer); err != nil {
		return Result{}, err
	}
	if err := os.MkdirAll(o.StateDir, 0o711); err != nil {
		return Result{}, fmt.Errorf("make state_dir: %w", err)
	}
	wish := o.container(layer)
	client, err := shim.Start(ctx, o.Shim, dir, wish)
	if err != nil {
		return Result{}, advised(err, o)
	}
	defer func() { _ = client.Close() }()
	seen, err := look(ctx, client)
	if err != nil {
		return Result{}, err
	}
	result := Result{UserNS: seen.UserNS, IDMap: seen.RootOwner == 0 && seen.VcapOwner == driver.VcapID, Seccomp: seen.Seccomp == seccompFilter}
	return result, errors.Join(seen.missing(o.Seccomp != "off"), limited(wish), end(ctx, client))
}

// container is what is run: this program, waiting, in the confinement of any other task.
func (o Options) container(layer string) driver.Container {
	sum := sha256.Sum256([]byte(o.StateDir)) // several agents may share a machine
	return driver.Container{
		ID:       "self-test-" + hex.EncodeToString(sum[:4]),
		Hostname: "self-test",
		RootFS:   driver.RootFS{Layers: []driver.Layer{{Dir: layer}}},
		IDs:      o.IDs,
		Mounts:   []driver.Mount{{Source: o.Shim, Target: program, ReadOnly: true}},
		Limits:   driver.Limits{MemoryBytes: memoryLimit, PIDs: pidsLimit, CPUShares: 100},
		Stdout:   os.DevNull,
		Stderr:   os.DevNull,
		Process:  driver.Process{Args: []string{program, "self-test", "wait"}, Dir: "/"},
		Seccomp:  o.Seccomp,
	}
}

// makeLayer makes a root file system whose files belong to root and vcap of the host: only a map of ids lets the
// container see them as its own.
func makeLayer(layer string) error {
	for _, name := range []string{"", ".drover", "dev", "etc", "home", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(layer, name), 0o755); err != nil {
			return fmt.Errorf("make the self-test's layer in image_dir: %w", err)
		}
	}
	for _, file := range []struct {
		name, text string
		owner      int
	}{
		{program, "", 0},
		{"etc/passwd", "root:x:0:0:root:/:/\n", 0},
		{"etc/group", "root:x:0:\n", 0},
		{rootFile, "", 0},
		{vcapFile, "", driver.VcapID},
	} {
		path := filepath.Join(layer, file.name)
		if err := os.WriteFile(path, []byte(file.text), 0o644); err != nil { //nolint:gosec // nothing secret is in it
			return fmt.Errorf("make the self-test's layer in image_dir: %w", err)
		}
		if err := os.Chown(path, file.owner, file.owner); err != nil {
			return fmt.Errorf("make the self-test's layer in image_dir: %w", err)
		}
	}
	return nil
}

// look runs a process in the container that says what it sees.
func look(ctx context.Context, client *shim.Client) (view, error) {
	var out, errs bytes.Buffer
	exit, err := client.Exec(ctx, shim.ExecRequest{
		Process: driver.Process{Args: []string{program, "self-test", "look"}}, Stdout: &out, Stderr: &errs,
	})
	if err != nil {
		return view{}, fmt.Errorf("run a process in it: %w", err)
	}
	if exit.Code != 0 {
		return view{}, fmt.Errorf("a process in it ended with status %d: %s", exit.Code, bytes.TrimSpace(errs.Bytes()))
	}
	var seen view
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		return view{}, fmt.Errorf("what a process in it said is no JSON: %w", err)
	}
	return seen, nil
}

// limited says which limits the host does not enforce.
func limited(wish driver.Container) error {
	group, _, err := shim.Groups(wish)
	if err != nil {
		return err
	}
	memory, pids, err := group.Limits()
	switch {
	case err != nil:
		return fmt.Errorf("read the limits of its cgroup: %w", err)
	case memory != memoryLimit:
		return fmt.Errorf("its memory is limited to %d bytes and not to %d: the memory controller does not work for cgroup %s", memory, memoryLimit, group.Path())
	case pids != pidsLimit:
		return fmt.Errorf("its processes are limited to %d and not to %d: the pids controller does not work for cgroup %s", pids, pidsLimit, group.Path())
	}
	return nil
}

// end stops the container by a signal, and wants to hear of a good end.
func end(ctx context.Context, client *shim.Client) error {
	if err := client.Stop(ctx, "SIGTERM", Limit/3); err != nil {
		return fmt.Errorf("stop it: %w", err)
	}
	exit, err := client.Wait(ctx)
	if err != nil {
		return fmt.Errorf("learn how it ended: %w", err)
	}
	if exit.Code != 0 {
		return fmt.Errorf("it did not end by SIGTERM: status %d, signal %d", exit.Code, exit.Signal)
	}
	return nil
}

// advised adds the cure to the failures that many hosts have.
func advised(err error, o Options) error {
	text := err.Error()
	for _, known := range []struct{ sign, cure string }{
		{"id-mapped layers are not possible", "put the plugin option image_dir (" + o.ImageDir + ") on ext4, xfs or btrfs, under Linux 5.19 or newer"},
		{"seccomp: config provided but seccomp not supported", "install a drover-shim that was built with the tag seccomp (make build does)"},
		{"make user namespace", "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, and the security policy of an outer container"},
		{"no such device", "load the kernel module overlay"},
	} {
		if strings.Contains(text, known.sign) {
			return fmt.Errorf("%w; cure: %s", err, known.cure)
		}
	}
	var fs unix.Statfs_t
	if unix.Statfs(o.StateDir, &fs) == nil && fs.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%w; state_dir (%s) is on a file system mounted noexec", err, o.StateDir)
	}
	return err
}
