//go:build root

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/drivertest"
)

// everything makes a store that removes whatever is not leased.
func everything(o *Options) { o.Limits = Limits{High: 1, Low: 0} }

func TestCollect(t *testing.T) {
	host := drivertest.Serve(t)
	s := real(t, everything)
	pull := func(name, owner string) *Image {
		ref := drivertest.Push(t, host, name, drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File(name, 0o644, noise(1<<20)+name))))
		img, err := s.Pull(t.Context(), Request{Ref: ref, Owner: owner}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	kept, unused := pull("a/kept:1", "task-1"), pull("a/unused:1", "")
	usage, err := s.Usage()
	if err != nil || usage.Bytes < 2<<20 || usage.Bytes > 3<<20 {
		t.Errorf("two images of a MiB: %+v, %v", usage, err)
	}
	done, err := s.Collect()
	if err != nil || done.Trees != 1 || done.Bytes < 1<<20 || !isDir(kept.Layers[0].Dir) || isDir(unused.Layers[0].Dir) {
		t.Errorf("removed %+v, %v; kept %v, unused %v", done, err, isDir(kept.Layers[0].Dir), isDir(unused.Layers[0].Dir))
	}
	if err := s.Lease("late", unused.Layers); !errors.Is(err, ErrUnreachable) || !IsTemporary(err) {
		t.Errorf("a lease of what is gone: %v", err)
	}
	if err := s.Release("late"); err != nil {
		t.Error(err)
	}
	if err := s.Release("task-1"); err != nil {
		t.Error(err)
	}
	if done, err = s.Collect(); err != nil || done.Trees != 1 || isDir(kept.Layers[0].Dir) {
		t.Errorf("after its release: %+v, %v", done, err)
	}
	if usage, err = s.Usage(); err != nil || usage.Bytes != 0 || usage.Layers != 0 {
		t.Errorf("at last: %+v, %v", usage, err)
	}
	nothingLeft(t, s)
}

func TestCollect_limits(t *testing.T) { //nolint:gocognit // one story
	host := drivertest.Serve(t)
	hour := func(n int) time.Time { return time.Now().Add(-time.Duration(n) * time.Hour) }
	for _, row := range []struct {
		name   string
		limits Limits
		left   string
	}{
		{"off", Limits{}, "one two three"},
		{"below the watermark", Limits{High: 100, Low: 99}, "one two three"},
		{"too young", Limits{High: 1, Low: 0, Delay: 10 * time.Hour}, "one two three"},
		{"by age", Limits{High: 100, Low: 99, MaxAge: 150 * time.Minute}, "one two"},
		{"above the watermark, but for the youngest", Limits{High: 1, Low: 0, Delay: 90 * time.Minute}, "one"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := real(t, func(o *Options) { o.Limits = row.limits })
			dirs := map[string]string{}
			for n, name := range []string{"one", "two", "three"} {
				ref := drivertest.Push(t, host, name+":1", drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File(name, 0o644, name))))
				img, err := s.Pull(t.Context(), Request{Ref: ref}, nil)
				if err != nil {
					t.Fatal(err)
				}
				dirs[name] = img.Layers[0].Dir
				if err := os.Chtimes(s.notePath(dirs[name]), hour(n+1), hour(n+1)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Collect(); err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, name := range []string{"one", "two", "three"} {
				if isDir(dirs[name]) {
					left = append(left, name)
				}
			}
			if got := strings.Join(left, " "); got != row.left {
				t.Errorf("left are %s, want %s", got, row.left)
			}
		})
	}
}

// A store of an earlier version has no notes: its trees are counted, and not removed at once.
func TestCollect_adopts(t *testing.T) {
	s := real(t, everything)
	dir := s.layerDir(mustHash(t, "sha256:"+digestOf("x")))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/file", []byte(noise(1<<16)))
	if _, err := s.Collect(); err != nil || !isDir(dir) {
		t.Errorf("removed at once: %v", err)
	}
	if usage, err := s.Usage(); err != nil || usage.Bytes < 1<<16 {
		t.Errorf("got %+v, %v", usage, err)
	}
	if _, err := s.Collect(); err != nil || isDir(dir) {
		t.Errorf("kept for ever: %v", err)
	}
}

func TestCollect_leasesOfTheDead(t *testing.T) {
	s := real(t, func(o *Options) {
		everything(o)
		o.Alive = func(owner string) bool { return owner == "alive" }
	})
	layers := []driver.Layer{{Dir: "/x"}}
	for _, owner := range []string{"alive", "dead", "young"} {
		if err := s.Lease(owner, layers); err != nil {
			t.Fatal(err)
		}
		if owner != "young" {
			path, _ := s.leasePath(owner)
			if err := os.Chtimes(path, time.Now().Add(-2*orphanAge), time.Now().Add(-2*orphanAge)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	if owners, err := s.Owners(); err != nil || strings.Join(owners, " ") != "alive young" {
		t.Errorf("left are %v, %v", owners, err)
	}
	// Nothing is removed that might be in use.
	write(t, filepath.Join(s.options.Dir, "leases", "broken.json"), []byte("{"))
	if _, err := s.Collect(); err == nil {
		t.Error("an unreadable lease is no lease")
	}
}

// Conformance 12: pulls, removals and changes of mind at the same time, in two processes' stores over one directory. A
// leased layer is whole, whatever happens around it.
func TestCollect_races(t *testing.T) { //nolint:gocognit // one story
	host := drivertest.Serve(t)
	var refs []string
	base := drivertest.Tar(t, drivertest.File("base", 0o644, noise(1<<16)))
	for n := range 4 {
		refs = append(refs, drivertest.Push(t, host, fmt.Sprintf("a/b:%d", n), drivertest.Image(t, driver.ImageConfig{}, base,
			drivertest.Tar(t, drivertest.File("own", 0o644, fmt.Sprint(n))))))
	}
	one := real(t, everything)
	two := real(t, func(o *Options) {
		o.Dir = one.options.Dir
		everything(o)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var collected atomic.Int64
	var collecting, working sync.WaitGroup
	for _, s := range []*Store{one, two} {
		collecting.Go(func() {
			for ctx.Err() == nil {
				done, err := s.Collect()
				if err != nil {
					t.Error(err)
				}
				collected.Add(int64(done.Trees))
			}
		})
	}
	for n := range 12 {
		working.Go(func() {
			s := []*Store{one, two}[n%2]
			for round := range 25 {
				owner := fmt.Sprint("task-", n)
				pulling, changed := context.WithTimeout(ctx, time.Duration(1+round*n)*time.Millisecond) // some change their mind
				if round%3 > 0 {
					pulling = ctx
				}
				img, err := s.Pull(pulling, Request{Ref: refs[(n+round)%4], Owner: owner}, nil)
				changed()
				if err == nil {
					err = s.Lease(owner, img.Layers)
				}
				if err == nil {
					if got := readFile(t, img.Layers[1].Dir+"/own"); got != fmt.Sprint((n+round)%4) {
						t.Errorf("a leased layer has %q", got)
					}
					if got := len(readFile(t, img.Layers[0].Dir+"/base")); got != 1<<16 {
						t.Errorf("a leased layer has %d bytes", got)
					}
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if err := s.Release(owner); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	cancel()
	collecting.Wait()
	if collected.Load() == 0 {
		t.Error("nothing was ever collected")
	}
	if _, err := one.Collect(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, one)
	nothingLeft(t, two)
}

// F19: a full disk makes room of what nobody uses, and only of that.
func TestPull_makesRoom(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := real(t, func(o *Options) {
		o.Dir = filepath.Join(dir, "images")
		o.Limits = Limits{High: 100, Low: 99, Delay: time.Hour}
	})
	host := drivertest.Serve(t)
	pull := func(name, owner string) (*Image, error) {
		ref := drivertest.Push(t, host, name, drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File(name, 0o644, name+noise(3<<20)))))
		return s.Pull(t.Context(), Request{Ref: ref, Owner: owner}, nil)
	}
	used, err := pull("used:1", "task")
	if err != nil {
		t.Fatal(err)
	}
	unused, err := pull("unused:1", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pull("next:1", "next"); err != nil || isDir(unused.Layers[0].Dir) || !isDir(used.Layers[0].Dir) {
		t.Errorf("got %v; unused is here: %v, used: %v", err, isDir(unused.Layers[0].Dir), isDir(used.Layers[0].Dir))
	}
	if _, err := pull("last:1", ""); !errors.Is(err, ErrFull) || !IsTemporary(err) {
		t.Errorf("with everything in use: %v", err)
	}
	if entries, err := os.ReadDir(s.staging); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
