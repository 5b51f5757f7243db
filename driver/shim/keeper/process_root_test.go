//go:build root

package keeper_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/shim"
)

// Whom a process runs as is looked up in the image, never on the host.
func TestUser(t *testing.T) {
	for _, test := range []struct{ name, user, want string }{
		{"nobody said is root", "", "uid=0 gid=0 groups=[] dir=/root"},
		{"a name has its groups", "vcap", "uid=2000 gid=2000 groups=[3000] dir=/home/vcap"},
		{"a number has its name's groups", "2000", "uid=2000 gid=2000 groups=[3000] dir=/home/vcap"},
		{"a number without a name", "1234", "uid=1234 gid=0 groups=[] dir=/"},
		{"a number and a group", "1234:77", "uid=1234 gid=77 groups=[] dir=/"},
		{"a name and a group's name", "vcap:extra", "uid=2000 gid=3000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, "id")
			b.wish.Process.User = test.user
			if exit := b.start().wait(); exit.Code != 0 {
				t.Fatalf("exit is %+v: %s", exit, b.errs)
			}
			b.sees(b.out, test.want)
		})
	}
	for user, want := range map[string]string{
		"stranger": "/etc/passwd has no such user", "vcap:strangers": "/etc/group has no such group", "4294967296": "user",
	} {
		t.Run("refuses "+user, func(t *testing.T) {
			b := newBox(t, "id")
			b.wish.Process.User = user
			_, err := shim.Start(t.Context(), program, b.dir, b.wish)
			t.Cleanup(b.destroy)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), user) {
				t.Errorf("error is %v, want one with %q", err, want)
			}
		})
	}
}

func TestEnv_ofTheUser(t *testing.T) {
	b := newBox(t, "env")
	b.start().wait()
	b.sees(b.out, "HOME=/home/vcap\nLOGNAME=vcap\nPATH=/usr/local/bin:/usr/bin:/bin\nUSER=vcap\n")

	said := newBox(t, "env")
	said.wish.Process.Env = []string{"HOME=/h", "USER=u", "LOGNAME=l", "PATH=/p"}
	said.start().wait()
	said.sees(said.out, "HOME=/h\nLOGNAME=l\nPATH=/p\nUSER=u\n")
}

// A working directory that is not there is made, as Docker does, and is root's.
func TestWorkDir_isMade(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		b := newBox(t, "then", "--", "id", "--", "stat", "/srv/app/data")
		b.wish.Process.Dir, b.wish.RootFS.ReadOnly = "/srv/app/data", readOnly
		if exit := b.start().wait(); exit.Code != 0 {
			t.Fatalf("exit is %+v: %s", exit, b.errs)
		}
		b.sees(b.out, "dir=/srv/app/data\n")
		b.sees(b.out, "drwxr-xr-x 0 0 /srv/app/data\n")
	}
}

// It is made below the container's root, whatever links the image has on the way.
func TestWorkDir_isMadeInside(t *testing.T) {
	b := newBox(t, "id")
	outside := "/tmp/" + b.wish.ID
	if err := os.Symlink("/tmp", filepath.Join(b.wish.RootFS.Layers[0].Dir, "srv")); err != nil {
		t.Fatal(err)
	}
	b.wish.Process.Dir = "/srv/" + b.wish.ID
	if exit := b.start().wait(); exit.Code != 0 {
		t.Fatalf("exit is %+v: %s", exit, b.errs)
	}
	b.sees(b.out, "dir="+outside+"\n")
	if _, err := os.Lstat(outside); err == nil {
		t.Error("a directory was made on the host")
	}
}

func TestInit(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		exit driver.Exit
		out  string
	}{
		{"keeps the exit code", []string{"exit", "43"}, driver.Exit{Code: 43}, ""},
		{"keeps the signal", []string{"die", "SIGKILL"}, driver.Exit{Code: 137, Signal: 9}, ""},
		{"keeps an exit code that looks like a signal's", []string{"exit", "137"}, driver.Exit{Code: 137}, ""},
		{"gives the program a parent", []string{"status", "PPid"}, driver.Exit{}, "\t1\n"},
		{"runs the program as the task's user", []string{"id"}, driver.Exit{}, "uid=2000 gid=2000"},
		{"hands the program no descriptor of its own", []string{"ls", "/proc/self/fd"}, driver.Exit{}, ""},
		{"finds the program on the path", nil, driver.Exit{}, "uid=2000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, test.args...)
			b.wish.Init = true
			if test.args == nil {
				b.wish.Process.Args = []string{"probe", "id"}
			}
			exit := b.start().wait()
			exit.Started, exit.Ended = time.Time{}, time.Time{}
			if exit != test.exit {
				t.Errorf("exit is %+v, want %+v: %s", exit, test.exit, b.errs)
			}
			b.sees(b.out, test.out)
			if test.args != nil && test.args[0] == "ls" && strings.Contains(b.out.String(), "3\n4\n5\n6\n7") {
				t.Errorf("descriptors are %s", b.out)
			}
		})
	}
}

func TestInit_passesSignalsOn(t *testing.T) {
	for _, signal := range []string{"SIGHUP", "SIGUSR1", "SIGWINCH", "SIGTERM", "SIGINT"} {
		t.Run(signal, func(t *testing.T) {
			b := newBox(t, "trap")
			b.wish.Init = true
			b.start()
			b.sees(b.out, "ready")
			if err := b.client.Signal(t.Context(), signal); err != nil {
				t.Fatal(err)
			}
			if exit := b.wait(); exit.Code != 0 {
				t.Errorf("exit is %+v", exit)
			}
			b.sees(b.out, "got "+signal)
		})
	}
}

// A program without a handler is not ended by SIGTERM when it is process 1. Below an init it is.
func TestInit_endsWhatDoesNotListen(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.wish.Init = true
	b.start()
	if err := b.client.Stop(t.Context(), "SIGTERM", time.Minute); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(); exit.Code != 143 || exit.Signal != 15 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestInit_reapsOrphans(t *testing.T) {
	b := newBox(t, "then", "--", "orphan", "/tmp/o", "--", "then", "--", "sleep", "60")
	b.wish.Init = true
	b.start()
	b.sees(b.out, "orphan ")
	pid := strings.Fields(b.out.String())[1]
	if got := b.exec("cat", "/proc/"+pid+"/status"); !strings.Contains(got, "PPid:\t1\n") {
		t.Fatalf("the orphan is %s", got)
	}
	b.exec("kill", "SIGTERM", pid)
	eventually(t, func() (bool, string) {
		list := b.exec("ls", "/proc")
		return !strings.Contains("\n"+list, "\n"+pid+"\n"), list
	})
}

// What cannot be run is told at the start, with an init as without one.
func TestInit_tellsWhyNot(t *testing.T) {
	for _, test := range []struct{ name, program, want string }{
		{"a missing program", "/bin/missing", "no such file or directory"},
		{"a program that is not on the path", "missing", "no such file or directory"},
		{"what is no program", "/etc/passwd", "permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t)
			b.wish.Init, b.wish.Process.Args = true, []string{test.program}
			_, err := shim.Start(t.Context(), program, b.dir, b.wish)
			t.Cleanup(b.destroy)
			if err == nil || !strings.Contains(err.Error(), test.program) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestInit_outlivesTheShim(t *testing.T) {
	b := newBox(t, "trap")
	b.wish.Init = true
	b.start()
	b.sees(b.out, "ready")
	b.killShim()
	if err := b.client.Stop(t.Context(), "SIGINT", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	b.sees(b.out, "got SIGINT")
	if exit := b.wait(); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestStdin(t *testing.T) {
	for _, test := range []struct {
		name             string
		interactive, tty bool
		want             string
	}{
		{"is at its end", false, false, "ended"},
		{"is open and silent", true, false, "silent"},
		{"is a terminal", false, true, "terminal"},
		{"is a terminal that stays open", true, true, "terminal"},
	} {
		for _, init := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				b := newBox(t, "stdin")
				b.wish.Interactive, b.wish.TTY, b.wish.Init = test.interactive, test.tty, init
				if exit := b.start().wait(); exit.Code != 0 {
					t.Errorf("exit is %+v", exit)
				}
				b.sees(b.out, test.want)
			})
		}
	}
}

// What is printed on a terminal is in the log to the last byte, and exec works beside it.
func TestTTY(t *testing.T) {
	b := newBox(t, "then", "--", "stty", "--", "flood", "64000", "--", "trap")
	b.wish.TTY = true
	b.start()
	b.sees(b.out, "80 24\r\n")
	b.sees(b.out, "flooded\r\nready\r\n")
	if got := b.exec("id"); !strings.Contains(got, "uid=2000") {
		t.Errorf("exec says %s", got)
	}
	if err := b.client.Stop(t.Context(), "SIGTERM", time.Minute); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if n := strings.Count(b.out.String(), strings.Repeat("x", 63)+"\r\n"); n != 1000 {
		t.Errorf("%d lines of 1000 are in the log", n)
	}
}
