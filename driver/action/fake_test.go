package action

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// fakeWorld runs processes that are words: "exit N", "oom N", "after DURATION N", "forever", "broken".
type fakeWorld struct {
	t        *testing.T
	dir      string // files of the container
	mu       sync.Mutex
	log      []string
	ran      []Command
	unpacked map[string]string
	ended    []string // processes that were told to end
	dial     func(ctx context.Context, address string) (net.Conn, error)
}

func newFakeWorld(t *testing.T) *fakeWorld {
	t.Helper()
	return &fakeWorld{t: t, dir: t.TempDir(), unpacked: map[string]string{}}
}

func (w *fakeWorld) Run(ctx context.Context, c Command) (Status, error) {
	w.mu.Lock()
	w.ran = append(w.ran, c)
	w.mu.Unlock()
	words := c.Args[1:]
	code := 0
	if len(words) > 0 {
		code, _ = strconv.Atoi(words[len(words)-1])
	}
	switch c.Args[0] {
	case "exit":
		return Status{Code: code}, nil
	case "oom":
		return Status{Code: code, OutOfMemory: true}, nil
	case "broken":
		return Status{}, fmt.Errorf("no such file")
	case "after":
		wait, err := time.ParseDuration(words[0])
		if err != nil {
			w.t.Error(err)
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			return Status{Code: code}, nil
		case <-ctx.Done():
		}
	default:
		<-ctx.Done()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, strings.Join(c.Args, " "))
	return Status{Code: 143}, nil
}

func (w *fakeWorld) Unpack(_ context.Context, user, to string, archive *os.File) error {
	text, err := io.ReadAll(archive)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unpacked[user+" "+to] = string(text)
	return err
}

func (w *fakeWorld) Open(_, path string) (*os.File, error) {
	return os.Open(filepath.Join(w.dir, path))
}

func (w *fakeWorld) Log(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, line)
}

func (w *fakeWorld) Address() (string, error) { return "127.0.0.1", nil }

func (w *fakeWorld) Dial(ctx context.Context, address string) (net.Conn, error) {
	if w.dial != nil {
		return w.dial(ctx, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// run is a Run action of words, whose log source is APP.
func run(words string) *models.RunAction {
	parts := strings.Fields(words)
	return &models.RunAction{Path: parts[0], Args: parts[1:], User: "vcap", LogSource: "APP"}
}

func options(t *testing.T, w World) Options {
	t.Helper()
	return Options{World: w, Temp: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

// runTask runs a Task's action in a fake world.
func runTask(ctx context.Context, t *testing.T, w *fakeWorld, task models.TaskDefinition, change func(*Options)) Outcome {
	t.Helper()
	raw, err := task.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, w)
	o.Work.Info = driver.RunInfo{Kind: driver.KindTask, GUID: "guid", Definition: raw}
	if change != nil {
		change(&o)
	}
	return Run(ctx, o, func() { t.Error("a Task is found healthy") })
}
