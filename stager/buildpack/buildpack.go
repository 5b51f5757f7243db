// Package buildpack finds, fetches and runs one buildpack: a directory with the scripts bin/detect, bin/supply,
// bin/finalize, bin/compile and bin/release, of which old ones have only detect, compile and release.
//
// Cloud Controller names buildpacks by key; on disk they are in a directory named by a hash of the key (DirName), put
// there by the platform, or by Fetch for a key that is a URL. The scripts are called as Cloud Foundry calls them:
//
//	bin/detect   BUILD                               exit 0 claims the app, stdout is the buildpack's name
//	bin/supply   BUILD CACHE DEPSDIR INDEX           adds its part under DEPSDIR/INDEX
//	bin/finalize BUILD CACHE DEPSDIR INDEX PROFILE   the last one also prepares the start
//	bin/compile  BUILD CACHE                         instead of supply and finalize
//	bin/release  BUILD                               YAML with default_process_types
//
// The scripts are programs of whoever wrote the buildpack: they run with the rights of the builder, in the same
// container, and nothing here confines them.
package buildpack

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // The name that older platforms give to a directory, not a proof.
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// ErrMissing is wrapped when no directory of a buildpack, or none with a bin directory, is found.
var ErrMissing = errors.New("buildpack not found")

// The scripts of a buildpack.
const (
	Detect   = "detect"
	Supply   = "supply"
	Finalize = "finalize"
	Compile  = "compile"
	Release  = "release"
)

// maxOutput bounds what is kept of a script's captured output.
const maxOutput = 1 << 20

// DirName returns the name of a buildpack's directory: sixteen hexadecimal digits of the key's xxhash64. Caches of
// supplying buildpacks have the same names.
func DirName(key string) string {
	return fmt.Sprintf("%016x", xxhash.Sum64String(key))
}

// OldDirName returns the directory's name in the way of platforms before 2024, the key's MD5.
func OldDirName(key string) string {
	sum := md5.Sum([]byte(key)) //nolint:gosec // See the import.
	return hex.EncodeToString(sum[:])
}

// Buildpack is one buildpack on disk.
type Buildpack struct {
	Key string
	// Dir is the directory that holds bin.
	Dir string
}

// Find returns the buildpack of a key below a directory of buildpacks. A buildpack whose archive had one directory
// around everything is found within that directory.
func Find(base, key string) (*Buildpack, error) {
	for _, name := range []string{DirName(key), OldDirName(key)} {
		dir := filepath.Join(base, name)
		if isDir(filepath.Join(dir, "bin")) {
			return &Buildpack{Key: key, Dir: dir}, nil
		}
		if !isDir(dir) {
			continue
		}
		if nested := onlyDir(dir); nested != "" && isDir(filepath.Join(nested, "bin")) {
			return &Buildpack{Key: key, Dir: nested}, nil
		}
		return nil, fmt.Errorf("%w: %s has no bin directory", ErrMissing, dir)
	}
	return nil, fmt.Errorf("%w: %s has no directory %s for the key", ErrMissing, base, DirName(key))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// onlyDir returns the one directory in dir, if it holds nothing else.
func onlyDir(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		return ""
	}
	return filepath.Join(dir, entries[0].Name())
}

// Has reports whether the buildpack has a script.
func (b *Buildpack) Has(script string) bool {
	info, err := os.Stat(b.script(script))
	return err == nil && !info.IsDir()
}

func (b *Buildpack) script(name string) string {
	return filepath.Join(b.Dir, "bin", name)
}

// Scripts is how scripts are run: the zero value runs them without environment or output.
type Scripts struct {
	Env            []string
	Stdout, Stderr io.Writer
}

// Run runs a script with output going to where the Scripts say.
func (s Scripts) Run(ctx context.Context, b *Buildpack, script string, args ...string) error {
	cmd := s.command(ctx, b, script, args)
	cmd.Stdout = s.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running bin/%s: %w", script, err)
	}
	return nil
}

// Output runs a script and returns what it wrote to its standard output, as far as that is reasonable to keep.
func (s Scripts) Output(ctx context.Context, b *Buildpack, script string, args ...string) ([]byte, error) {
	cmd := s.command(ctx, b, script, args)
	out := &bounded{rest: maxOutput}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("running bin/%s: %w", script, err)
	}
	return out.buf.Bytes(), nil
}

// Claims runs bin/detect and reports whether the buildpack claims the app, and by what name. An error means that
// detect could not be run at all.
func (s Scripts) Claims(ctx context.Context, b *Buildpack, build string) (name string, claimed bool, err error) {
	out, err := s.Output(ctx, b, Detect, build)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return strings.TrimRight(string(out), "\r\n"), true, nil
	case errors.As(err, &exit) && ctx.Err() == nil:
		return "", false, nil
	default:
		return "", false, err
	}
}

func (s Scripts) command(ctx context.Context, b *Buildpack, script string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.script(script), args...)
	cmd.Env = s.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // Not the builder's own.
	}
	cmd.Stderr = s.Stderr
	// A script's background process that keeps the output open is not waited for when the staging was cancelled.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// bounded keeps the first bytes and swallows the rest, so that a talkative script is not killed by a closed pipe.
type bounded struct {
	buf  bytes.Buffer
	rest int
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.rest)
	b.buf.Write(p[:keep])
	b.rest -= keep
	return len(p), nil
}
