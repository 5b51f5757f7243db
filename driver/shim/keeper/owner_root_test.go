//go:build root

package keeper_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"drover/driver"
)

// rootsImage adds to a test's layers what an image leaves that was built as root, and returns its directory.
func rootsImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, made := range []struct {
		name string
		mode os.FileMode
	}{{"app", 0o755}, {"app/gems", 0o755}, {"app/own", 0o700}} {
		if err := os.Mkdir(filepath.Join(dir, made.name), made.mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"app/secret", "app/gems/old", "app/gems/gone"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("of the image\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "app/own"), driver.VcapID, driver.VcapID); err != nil {
		t.Fatal(err)
	}
	return dir
}

// digest is that of everything a directory holds, with modes and owners.
func digest(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("no stat here")
		}
		if _, err := fmt.Fprintln(sum, path, info.Mode(), info.Size(), stat.Uid, stat.Gid, stat.Ino); err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			sum.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// What an image wrote as root can be read, written, renamed and deleted by the task's user, and the image stays as it is.
func TestOwner(t *testing.T) {
	image := rootsImage(t)
	before := digest(t, image)
	change := []string{
		"then", "--", "cat", "/app/secret", "--", "append", "/app/secret", "mine", "--", "rename", "/app/gems/old", "/app/gems/new",
		"--", "remove", "/app/gems/gone", "--", "write", "/app/gems/more", "x", "--", "write", "/top", "x", "--", "ls", "/app/gems",
		"--", "cat", "/app/secret", "--", "stat", "/app/secret", "/app/gems/new", "/app/gems/more", "/app/own", "/app", "/", "--", "sleep", "60",
	}
	boxOf := func(user string, args ...string) *box {
		b := newBox(t, args...)
		b.wish.RootFS.Layers = append(b.wish.RootFS.Layers, driver.Layer{Dir: image})
		b.wish.Process.User = user
		return b
	}
	plain := boxOf("vcap", change...).start()
	if exit := plain.wait(); exit.Code == 0 {
		t.Errorf("the old complaint has gone without us: %s", plain.out)
	}
	for _, user := range []struct{ name, ids string }{{"vcap", "2000 2000"}, {"nobody", "65534 65534"}, {"1234:77", "1234 77"}} {
		b := boxOf(user.name, change...)
		b.wish.RootFS.Owner = &driver.Owner{User: user.name, Layers: 2}
		b.start() // all run at the same time, on the same layer
		b.sees(b.out, " /\n")
		out := b.out.String()
		for _, want := range []string{
			"of the image\nmine\n", "more\nnew\n", "-rw------- " + user.ids + " /app/secret", user.ids + " /app/gems/new",
			user.ids + " /app/gems/more", user.ids + " /app\n", user.ids + " /\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is missing in\n%s", user.name, want, out)
			}
		}
		if strings.Contains(out, "gone") || user.name == "vcap" && !strings.Contains(out, " 0 0 /app/own") {
			t.Errorf("%s sees\n%s", user.name, out)
		}
		if _, err := os.Lstat(filepath.Join(b.dir, "owner")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the look at the image has left something: %v", err)
		}
	}
	if after := digest(t, image); after != before {
		t.Error("the image has changed on the disk")
	}
}

// Layers above the image hold what belongs to the right user already.
func TestOwner_isOfTheImageAlone(t *testing.T) {
	b := newBox(t, "cat", "/app/secret")
	b.wish.RootFS.Layers = append(b.wish.RootFS.Layers, driver.Layer{Dir: rootsImage(t)})
	b.wish.RootFS.Owner = &driver.Owner{User: "vcap", Layers: 1}
	if exit := b.start().wait(); exit.Code == 0 {
		t.Error("root's file of the layer above is vcap's")
	}
	b = newBox(t, "stat", "/app/own", "/bin")
	b.wish.RootFS.Layers = append(b.wish.RootFS.Layers, driver.Layer{Dir: rootsImage(t)})
	b.wish.RootFS.Owner = &driver.Owner{User: "vcap", Layers: 1}
	b.start().wait()
	b.sees(b.out, "drwx------ 2000 2000 /app/own")
	b.sees(b.out, "2000 2000 /bin")
}

func TestOwner_unknown(t *testing.T) {
	b := newBox(t, "echo")
	b.wish.RootFS.Owner = &driver.Owner{User: "mallory", Layers: 1}
	if b.tryToRun() {
		t.Error("it runs")
	}
}
