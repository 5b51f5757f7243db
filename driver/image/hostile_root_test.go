//go:build root

package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

// treeHash is one digest of everything in a tree: names, kinds, modes, owners, times, contents.
func treeHash(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(sum, strings.TrimPrefix(path, dir), stat.Mode, stat.Uid, stat.Gid)
		if !entry.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%d %x\n", stat.Mtim.Sec, sha256.Sum256(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// named are the trees of a store that have a name, and so may be used.
func named(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "layers/*/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPull_killedAnywhere kills a process that pulls at random moments. What has a name then is whole.
func TestPull_killedAnywhere(t *testing.T) { //nolint:gocognit // one story
	var layers [][]byte
	for n := range 4 {
		var entries []drivertest.Entry
		for file := range 200 {
			entries = append(entries, drivertest.File(fmt.Sprintf("d%d/f%d", n, file), 0o644, noise(4 << 10)[file:]))
		}
		layers = append(layers, drivertest.Tar(t, entries...))
	}
	ref := drivertest.Push(t, drivertest.Serve(t), "team/app:1", drivertest.Image(t, driver.ImageConfig{}, layers...))
	whole := map[string]string{}
	clean := real(t, nil)
	img, err := clean.Pull(t.Context(), Request{Ref: ref}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range img.Layers {
		whole[filepath.Base(layer.Dir)] = treeHash(t, layer.Dir)
	}
	s := real(t, nil)
	began := time.Now()
	_ = exec.CommandContext(t.Context(), s.options.Unpacker[0], asPuller, filepath.Join(t.TempDir(), "images"), ref).Run() // always says 1
	took := time.Since(began)
	halves := 0
	for range 20 {
		cmd := exec.CommandContext(t.Context(), s.options.Unpacker[0], asPuller, s.options.Dir, ref)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(time.Duration(rand.Int64N(int64(took)))) //nolint:gosec // any moment will do
		<-timer.C
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		found := named(t, s.options.Dir)
		for _, dir := range found {
			if treeHash(t, dir) != whole[filepath.Base(dir)] {
				t.Errorf("%s has a name and is not whole", dir)
			}
		}
		if len(found) < len(layers) {
			halves++
		}
		if rand.IntN(2) == 0 { // begin anew, or go on with what is there
			for _, dir := range found {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("%d of 20 kills came before the end", halves)
	again, err := Open(s.options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
		t.Error(err)
	}
	for _, dir := range named(t, s.options.Dir) {
		if treeHash(t, dir) != whole[filepath.Base(dir)] {
			t.Errorf("at last %s is not whole", dir)
		}
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// peak watches the memory of this process's heap and of its children, and returns how much it grew at most.
func peak(t *testing.T, work func()) int64 {
	t.Helper()
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithCancel(t.Context())
	grown := make(chan int64)
	go func() {
		most := int64(0)
		for ctx.Err() == nil {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most = max(most, int64(now.HeapInuse)-int64(before.HeapInuse), childrenRSS()) //nolint:gosec // no heap is that large
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
		grown <- most
	}()
	work()
	cancel()
	return <-grown
}

// childrenRSS is the largest resident memory of this process's children.
func childrenRSS() (most int64) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range tasks {
		list, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(list)) {
			if line, _ := os.ReadFile("/proc/" + pid + "/cmdline"); !strings.Contains(string(line), asHelper) {
				continue // still a copy of this process
			}
			file, err := os.Open("/proc/" + pid + "/status")
			if err != nil {
				continue
			}
			for lines := bufio.NewScanner(file); lines.Scan(); {
				if text, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
					kb, _ := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
					most = max(most, kb<<10)
				}
			}
			_ = file.Close()
		}
	}
	return most
}

// zeros is a packed tar that says to have one big file of zeros: of many members, one for each 64 MiB.
func zeros(t *testing.T, members int, pack func([]byte) []byte) []byte {
	t.Helper()
	const each = 64 << 20
	entry := drivertest.File("zeros", 0o644, "")
	entry.Size = int64(members) * each
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&entry.Header); err != nil {
		t.Fatal(err)
	}
	return append(pack(head.Bytes()), bytes.Repeat(pack(make([]byte, each)), members)...)
}

// serveImage answers for one image made of raw blobs, whatever they are.
func serveImage(t *testing.T, manifest []byte, blobs map[string][]byte) string {
	t.Helper()
	return registry(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			_, _ = w.Write(manifest)
			return
		}
		raw, ok := blobs[filepath.Base(r.URL.Path)]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		_, _ = w.Write(raw)
	}) + "/a/b:1"
}

func shaOf(raw []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)) }

// oneBlob is an image of one raw layer.
func oneBlob(t *testing.T, layer []byte, size int64) (string, map[string][]byte) {
	t.Helper()
	config := []byte(`{"os":"linux","architecture":"` + runtime.GOARCH + `","rootfs":{"type":"layers","diff_ids":["` + shaOf([]byte("x")) + `"]}}`)
	manifest := map[string]any{
		"schemaVersion": 2,
		"config":        map[string]any{"digest": shaOf(config), "size": len(config)},
		"layers":        []any{map[string]any{"digest": shaOf(layer), "size": size}},
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), map[string][]byte{shaOf(config): config, shaOf(layer): layer}
}

// A registry may say what it likes: the plugin and the unpacker stay small, and nothing is left.
func TestPull_hostileContentStaysSmall(t *testing.T) {
	const most = 64 << 20
	layer := `{"digest":"sha256:` + strings.Repeat("a", 64) + `","size":1}`
	bomb := zeros(t, 64, func(raw []byte) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		_, _ = w.Write(raw)
		_ = w.Close()
		return buf.Bytes()
	})
	// The header of a zstd frame that wants a window of 512 MiB, and one block of a repeated byte.
	wide := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 0x03, 0x00, 0x04, 0x00}
	small := drivertest.Tar(t, drivertest.File("a", 0o644, "1"))
	for _, row := range []struct {
		name     string
		manifest func() (string, map[string][]byte)
		want     error
	}{
		{"a manifest of 100 MB", func() (string, map[string][]byte) { return strings.Repeat(" ", 100<<20), nil }, ErrInvalid},
		{"10,000 layers", func() (string, map[string][]byte) {
			return `{"config":` + layer + `,"layers":[` + strings.TrimSuffix(strings.Repeat(layer+",", 10_000), ",") + `]}`, nil
		}, ErrInvalid},
		{"a layer of another place", func() (string, map[string][]byte) {
			return `{"config":` + layer + `,"layers":[{"digest":"sha256:` + strings.Repeat("a", 64) + `","size":1,"urls":["https://evil.example.com/x"]}]}`, nil
		}, ErrInvalid},
		{"a layer said to be smaller", func() (string, map[string][]byte) { return oneBlob(t, small, 10) }, ErrChecksum},
		{"a layer said to be larger", func() (string, map[string][]byte) { return oneBlob(t, small, 1<<20) }, ErrChecksum},
		{"a layer said to be negative", func() (string, map[string][]byte) { return oneBlob(t, small, -1) }, ErrInvalid},
		{"a layer said to be huge", func() (string, map[string][]byte) { return oneBlob(t, small, 1<<60) }, ErrInvalid},
		{"a gzip bomb of 4 GB in 65 members", func() (string, map[string][]byte) { return oneBlob(t, bomb, int64(len(bomb))) }, nil},
		{"a zstd window of 512 MB", func() (string, map[string][]byte) { return oneBlob(t, wide, int64(len(wide))) }, ErrInvalid},
		{"garbage behind the end", func() (string, map[string][]byte) {
			raw := append(bytes.Clone(small), bytes.Repeat([]byte("garbage"), 1<<20)...)
			return oneBlob(t, raw, int64(len(raw)))
		}, ErrChecksum},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil { // a bomb may fill this, and no more
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			manifest, blobs := row.manifest()
			ref := serveImage(t, []byte(manifest), blobs)
			s := real(t, func(o *Options) { o.Dir = filepath.Join(dir, "images") })
			var err error
			grown := peak(t, func() { _, err = s.Pull(t.Context(), Request{Ref: ref}, nil) })
			if err == nil || row.want != nil && !errors.Is(err, row.want) || len(err.Error()) > 2000 {
				t.Errorf("got %v, want %v", err, row.want)
			}
			if grown > most {
				t.Errorf("memory grew by %d MiB", grown>>20)
			}
			t.Logf("memory grew by %d MiB: %.150v", grown>>20, err)
			nothingLeft(t, s)
		})
	}
}
