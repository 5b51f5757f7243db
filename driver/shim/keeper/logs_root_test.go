//go:build root

package keeper_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

const floodLine = 64

func TestLogLimit_dropsAndSaysSo(t *testing.T) {
	const limit, flood = 64 * 100, 64 * 5000
	b := newBox(t, "flood", strconv.Itoa(flood))
	b.wish.Logging.Limit = new(int64(limit))
	if exit := b.start().wait(); exit.Code != 0 {
		t.Fatalf("exit is %+v", exit)
	}
	b.sees(b.out, "the log rate limit dropped ")
	text := b.out.String()
	if n := strings.Count(text, "app instance exceeded log rate limit (6400 bytes/sec)\n"); n < 1 || n > 30 {
		t.Errorf("it was told %d times", n)
	}
	printed := int64(0)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "x") {
			printed += int64(len(line))
			if len(line) != floodLine {
				t.Fatalf("a line was cut: %q", line)
			}
		}
	}
	if printed < limit || printed >= flood {
		t.Errorf("%d bytes of %d were printed, at %d per second", printed, flood, limit)
	}
}

func TestLogLimit_leavesAloneWhatIsBelow(t *testing.T) {
	b := newBox(t, "then", "--", "chatter", "1000", "--", "exit", "3")
	b.wish.Logging.Limit = new(int64(1 << 20))
	if exit := b.start().wait(); exit.Code != 3 {
		t.Fatalf("exit is %+v", exit)
	}
	b.sees(b.out, "out 999\n")
	b.sees(b.errs, "err 999\n")
	if n := strings.Count(b.out.String(), "\n"); n != 1000 {
		t.Errorf("%d lines of 1000", n)
	}
}

// Diego's limit of zero is no log at all, and of minus one none.
func TestLogLimit_zeroOfATask(t *testing.T) {
	b := taskBox(t, models.TaskDefinition{Action: models.WrapAction(models.Serial(probe("APP", "echo", "secret"), probe("APP", "echo", "more")))})
	b.wish.Logging.Limit = new(int64(0))
	if exit := b.start().wait(); exit.Code != 0 {
		t.Fatalf("exit is %+v", exit)
	}
	b.sees(b.out, "the log rate limit dropped 2 lines (12 bytes)\n")
	if strings.Contains(b.out.String(), "secret") {
		t.Errorf("output is %s", b.out)
	}
}

func TestLogLimit_ofATerminal(t *testing.T) {
	b := newBox(t, "flood", "640000")
	b.wish.Logging.Limit, b.wish.TTY = new(int64(1000)), true
	b.start().wait()
	b.sees(b.out, "app instance exceeded log rate limit (1000 bytes/sec)")
}

func TestLog_none(t *testing.T) {
	b := newBox(t, "flood", "640000")
	b.wish.Stdout, b.wish.Stderr, b.wish.Logging = os.DevNull, os.DevNull, driver.Logging{Patience: time.Second}
	if exit := b.start().wait(); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

// A program that opens /dev/stdout itself, as many images make theirs do, writes into the log.
func TestLog_isOpenedAnew(t *testing.T) {
	for _, limit := range []*int64{nil, new(int64(1 << 20))} {
		b := newBox(t, "then", "--", "append", "/proc/self/fd/1", "opened", "--", "append", "/proc/self/fd/2", "as well")
		b.wish.Logging.Limit = limit
		if exit := b.start().wait(); exit.Code != 0 {
			t.Errorf("exit is %+v: %s", exit, b.errs)
		}
		b.sees(b.out, "opened\n")
		b.sees(b.errs, "as well\n")
	}
}

// deafLog gives the box a log that nobody reads.
func (b *box) deafLog() string {
	b.t.Helper()
	path := filepath.Join(filepath.Dir(b.out.path), "deaf.fifo")
	mkfifo(b.t, path)
	b.wish.Stdout = path
	return path
}

// readAll reads what is in a fifo now.
func readAll(t *testing.T, fifo *os.File) string {
	t.Helper()
	buffer := make([]byte, 1<<20)
	if err := fifo.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := fifo.Read(buffer)
	if err != nil {
		return ""
	}
	return string(buffer[:n])
}

// A task whose log collector has died goes on, and what was lost is told to the next one.
func TestLogPatience_endsWithoutAReader(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*driver.Container)
	}{
		{"into the log itself", func(*driver.Container) {}},
		{"through the limit's pipes", func(c *driver.Container) { c.Logging.Limit = new(int64(1 << 30)) }},
		{"through a terminal", func(c *driver.Container) { c.TTY = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, "then", "--", "flood", "500000", "--", "write", "/tmp/flooded", "x", "--", "sleep", "60")
			b.wish.Logging.Patience = time.Second
			path := b.deafLog()
			test.change(&b.wish)
			b.start()
			eventually(t, func() (bool, string) {
				_, err := os.Stat(filepath.Join(b.dir, "disk/upper/tmp/flooded"))
				return err == nil, "the task still waits for its log"
			})
			collector, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = collector.Close() }()
			var seen string
			eventually(t, func() (bool, string) {
				b.exec("append", "/proc/1/fd/1", "after")
				seen += readAll(t, collector)
				_, after, lost := strings.Cut(seen, "bytes of output were lost, because nobody read the log\n")
				return lost && strings.Contains(after, "after"), seen
			})
		})
	}
}

// A collector that lives is robbed of nothing, however slow it is.
func TestLogPatience_leavesASlowReaderAlone(t *testing.T) {
	b := newBox(t, "flood", strconv.Itoa(200*floodLine*floodLine))
	b.wish.Logging.Patience = time.Second
	path := b.deafLog()
	// The collector is another process, as Nomad's is; the shim does not count itself.
	collector, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = collector.Close() }()
	b.start()
	time.Sleep(3500 * time.Millisecond) //nolint:forbidigo // three times its patience: what must not happen cannot be waited for
	total := 0
	eventually(t, func() (bool, string) {
		total += strings.Count(readAll(t, collector), "x\n")
		return total == 200*floodLine, strconv.Itoa(total)
	})
	if exit := b.wait(); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
}
