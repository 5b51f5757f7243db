// Package stack makes the root file systems that drover dev runs apps on, from Debian packages and nothing else.
//
// Maker.RootFS is the stack: a minimal Debian with what buildpacks and their runtimes need, and Cloud Foundry's user
// vcap. Maker.Web is an image of a real web server, for pushing a Docker image where there is no registry to pull
// one from. Both take a minute to make and are kept in a cache directory under a name that holds their whole recipe,
// so that a changed recipe makes a new one. They need root, debootstrap, tar and a Debian mirror.
package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// suite is the Debian release that everything here is made of.
const suite = "bookworm"

// vcapID is the uid and gid of user vcap in every Cloud Foundry stack.
const vcapID = 2000

// stackPackages are what a stack has beyond a minimal Debian: the tools that buildpacks call and the libraries that
// the runtimes that they bring need.
func stackPackages() []string {
	return []string{
		"bash", "bzip2", "ca-certificates", "curl", "file", "git", "libatomic1", "libstdc++6", "locales", "netbase",
		"openssl", "procps", "unzip", "xz-utils", "zip",
	}
}

// Maker makes and keeps root file systems.
type Maker struct {
	// Cache is the directory in which they are kept.
	Cache string
	// Mirror is the Debian mirror; empty for debootstrap's own choice.
	Mirror string
	// Progress is told of the steps that take long.
	Progress func(message string)
}

// RootFS returns the directory of the stack, made now if it is not there.
func (m Maker) RootFS(ctx context.Context) (string, error) {
	dir, err := m.once(ctx, "stack", stackPackages(), func(ctx context.Context, dir string) error {
		m.Progress("making the stack: a Debian root file system (once, about a minute)")
		rootfs := filepath.Join(dir, "rootfs")
		if err := m.debootstrap(ctx, "stack", rootfs, stackPackages()); err != nil {
			return err
		}
		return addVcap(rootfs)
	})
	return filepath.Join(dir, "rootfs"), err
}

// Unpack returns the directory of a root file system that an operator has as a tar archive.
func (m Maker) Unpack(ctx context.Context, archive string) (string, error) {
	info, err := os.Stat(archive)
	if err != nil {
		return "", fmt.Errorf("stack archive: %w", err)
	}
	recipe := []string{archive, info.ModTime().String(), fmt.Sprint(info.Size())}
	dir, err := m.once(ctx, "archive", recipe, func(ctx context.Context, dir string) error {
		m.Progress("unpacking the stack " + archive)
		rootfs := filepath.Join(dir, "rootfs")
		if err := os.Mkdir(rootfs, 0o755); err != nil {
			return fmt.Errorf("unpack stack: %w", err)
		}
		return run(ctx, filepath.Join(dir, "log"), io.Discard, "tar", "--numeric-owner", "-C", rootfs, "-xpf", archive)
	})
	return filepath.Join(dir, "rootfs"), err
}

// once returns the cache directory of a recipe, and lets make fill it first if nobody has. A lock keeps two processes
// from making the same; a failed attempt leaves nothing but its log beside the directory.
func (m Maker) once(ctx context.Context, kind string, recipe []string, make func(ctx context.Context, dir string) error) (string, error) {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{recipeVersion, suite, m.Mirror}, recipe...), "\n")))
	dir := filepath.Join(m.Cache, kind+"-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(m.Cache, 0o700); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	attempt := dir + ".new"
	if err := os.RemoveAll(attempt); err != nil {
		return "", fmt.Errorf("clear away an older attempt: %w", err)
	}
	if err := os.Mkdir(attempt, 0o700); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	if err := make(ctx, attempt); err != nil {
		log := dir + ".log"
		_ = os.Rename(filepath.Join(attempt, "log"), log) // there may be none
		return "", errors.Join(fmt.Errorf("%w (log: %s)", err, log), os.RemoveAll(attempt))
	}
	if err := os.Rename(attempt, dir); err != nil {
		return "", fmt.Errorf("keep %s: %w", kind, err)
	}
	return dir, nil
}

// recipeVersion changes when the steps here do.
const recipeVersion = "1"

// lock waits for an exclusive lock on a file.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cache: %w", err), file.Close())
	}
	return func() { _ = file.Close() }, nil // closing unlocks
}

// debootstrap makes a minimal Debian with some packages and without what only a running system needs.
func (m Maker) debootstrap(ctx context.Context, what, rootfs string, packages []string) error {
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ","), suite, rootfs}
	if m.Mirror != "" {
		args = append(args, m.Mirror)
	}
	watch := &teller{what: what, tell: m.Progress, now: time.Now, last: time.Now()}
	if err := run(ctx, filepath.Join(filepath.Dir(rootfs), "log"), watch, "debootstrap", args...); err != nil {
		return err
	}
	for _, pattern := range []string{
		"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "var/log/*", "dev/*", "debootstrap",
		"usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "etc/resolv.conf", "etc/hostname", "etc/machine-id",
	} {
		found, err := filepath.Glob(filepath.Join(rootfs, pattern))
		if err != nil {
			return fmt.Errorf("clean root file system: %w", err)
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("clean root file system: %w", err)
			}
		}
	}
	return nil
}

// addVcap gives a root file system the user that runs apps, and the places that apps expect.
func addVcap(rootfs string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return fmt.Errorf("add vcap: %w", err)
	}
	defer func() { _ = root.Close() }() // everything written through it was closed already
	for _, entry := range []struct{ file, line string }{
		{"etc/passwd", fmt.Sprintf("vcap:x:%d:%d::/home/vcap:/bin/bash\n", vcapID, vcapID)},
		{"etc/group", fmt.Sprintf("vcap:x:%d:\n", vcapID)},
		{"etc/shadow", "vcap:*:19000:0:99999:7:::\n"},
	} {
		if err := appendLine(root, entry.file, entry.line); err != nil {
			return fmt.Errorf("add vcap: %w", err)
		}
	}
	if err := root.Mkdir("home/vcap", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("add vcap: %w", err)
	}
	if err := root.Chown("home/vcap", vcapID, vcapID); err != nil {
		return fmt.Errorf("add vcap: %w", err)
	}
	if err := root.Symlink("/home/vcap/app", "app"); err != nil {
		return fmt.Errorf("add vcap: %w", err)
	}
	return nil
}

func appendLine(root *os.Root, file, line string) error {
	handle, err := root.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = handle.WriteString(line)
	return errors.Join(err, handle.Close())
}

// run runs a program with its output in a log file, and a copy of it to watch.
func run(ctx context.Context, log string, watch io.Writer, program string, args ...string) error {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = output.Close() }() // the program's end tells more than the log's
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = io.MultiWriter(output, watch), output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// environment is what programs get of ours: how to find programs and the way to the mirror.
func environment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	for _, name := range []string{"HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}
