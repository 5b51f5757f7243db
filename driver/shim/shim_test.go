package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// fakeHandler is a shim without a container.
type fakeHandler struct {
	exit    driver.Exit
	ended   chan struct{}
	signals chan unix.Signal
	events  []Event
}

func (h *fakeHandler) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	case <-h.ended:
		return h.exit, nil
	}
}

func (h *fakeHandler) Stop(_ context.Context, sig unix.Signal, timeout time.Duration) error {
	if timeout != time.Minute {
		return fmt.Errorf("timeout is %s", timeout)
	}
	h.signals <- sig
	close(h.ended)
	return nil
}

func (h *fakeHandler) Signal(_ context.Context, sig unix.Signal) error {
	if sig == unix.SIGUSR1 {
		return ErrNotRunning
	}
	h.signals <- sig
	return nil
}

// Exec echoes: stdin to stdout, sizes to stderr.
func (h *fakeHandler) Exec(ctx context.Context, r ExecRequest) (driver.Exit, error) {
	switch r.Process.Args[0] {
	case "fail":
		return driver.Exit{}, errors.New("no such program")
	case "hang":
		<-ctx.Done()
		close(h.ended)
		return driver.Exit{}, ctx.Err()
	}
	if _, err := io.Copy(r.Stdout, r.Stdin); err != nil {
		return driver.Exit{}, err
	}
	if r.TTY {
		if _, err := fmt.Fprint(r.Stderr, <-r.Resize, <-r.Resize); err != nil {
			return driver.Exit{}, err
		}
	}
	return driver.Exit{Code: 3}, nil
}

func (h *fakeHandler) Events(_ context.Context, after int, give func(Event) error) error {
	for _, e := range h.events[after:] {
		if err := give(e); err != nil {
			return err
		}
	}
	return nil
}

// serve serves a handler in a state directory whose path is longer than a socket's address may be.
func serve(t *testing.T, h *fakeHandler) *Client {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(dir, containerFile, driver.Container{ID: "box"}); err != nil {
		t.Fatal(err)
	}
	if err := Dir(dir).SetShim(); err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, socketFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v", info.Mode(), err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Serve(context.Background(), listener, "box", h, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	c, err := Connect(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newFakeHandler() *fakeHandler {
	return &fakeHandler{ended: make(chan struct{}), signals: make(chan unix.Signal, 2)}
}

func TestWait(t *testing.T) {
	h := newFakeHandler()
	h.exit = driver.Exit{Code: 7, Reason: "because"}
	c := serve(t, h)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait that is given up: %v", err)
	}
	answers := make(chan driver.Exit, 3)
	for range cap(answers) {
		go func() {
			exit, err := c.Wait(t.Context())
			if err != nil {
				t.Error(err)
			}
			answers <- exit
		}()
	}
	close(h.ended)
	for range cap(answers) {
		if exit := <-answers; exit != h.exit {
			t.Errorf("exit is %+v", exit)
		}
	}
}

func TestStopAndSignal(t *testing.T) {
	h := newFakeHandler()
	c := serve(t, h)
	if err := c.Signal(t.Context(), "hup"); err != nil || <-h.signals != unix.SIGHUP {
		t.Errorf("signal: %v", err)
	}
	if err := c.Signal(t.Context(), "10"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("signal of what has ended: %v", err)
	}
	if err := c.Stop(t.Context(), "", time.Minute); err != nil || <-h.signals != unix.SIGTERM {
		t.Errorf("stop: %v", err)
	}
	if err := c.Signal(t.Context(), "SIGNONSENSE"); err == nil {
		t.Error("an unknown signal is taken")
	}
}

// An image can call its signal what it likes, and must be stopped.
func TestStop_byAnUnknownSignal(t *testing.T) {
	h := newFakeHandler()
	if err := serve(t, h).Stop(t.Context(), "SIGNONSENSE", time.Minute); err != nil || <-h.signals != unix.SIGTERM {
		t.Errorf("stop: %v", err)
	}
}

func TestExec(t *testing.T) {
	c := serve(t, newFakeHandler())
	text := strings.Repeat("many bytes ", 100_000)
	sizes := make(chan [2]uint16, 2)
	sizes <- [2]uint16{80, 24}
	sizes <- [2]uint16{100, 40}
	var out, errs bytes.Buffer
	exit, err := c.Exec(t.Context(), ExecRequest{
		Process: driver.Process{Args: []string{"echo"}}, TTY: true, Stdin: strings.NewReader(text), Stdout: &out, Stderr: &errs, Resize: sizes,
	})
	if err != nil || exit.Code != 3 || out.String() != text || errs.String() != "[80 24] [100 40]" {
		t.Errorf("exit %+v, error %v, %d bytes out, %q", exit, err, out.Len(), &errs)
	}
	_, err = c.Exec(t.Context(), ExecRequest{Process: driver.Process{Args: []string{"fail"}}})
	if err == nil || !strings.Contains(err.Error(), "no such program") {
		t.Errorf("error is %v", err)
	}
	if _, err = c.Exec(t.Context(), ExecRequest{}); err == nil {
		t.Error("no command is taken")
	}
}

func TestExec_endsWithItsCaller(t *testing.T) {
	h := newFakeHandler()
	c := serve(t, h)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, ExecRequest{Process: driver.Process{Args: []string{"hang"}}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	select {
	case <-h.ended:
	case <-time.After(10 * time.Second):
		t.Error("the shim did not hear of it")
	}
}

func TestEvents_areGivenOnce(t *testing.T) {
	h := newFakeHandler()
	h.events = []Event{{Seq: 1, Phase: driver.PhaseStarted}, {Seq: 2, Phase: driver.PhaseHealthy}}
	c := serve(t, h)
	collect := func(c *Client) string {
		t.Helper()
		events, err := c.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for e := range events {
			text += e.Phase + " "
		}
		return text
	}
	if got := collect(c); got != "started healthy " {
		t.Errorf("events are %q", got)
	}
	again, err := Connect(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(again); got != "" {
		t.Errorf("events are given again: %q", got)
	}
}

func TestEvents_ofADeadShim(t *testing.T) {
	dir := Dir(t.TempDir())
	if err := writeJSON(string(dir), containerFile, driver.Container{ID: "box"}); err != nil {
		t.Fatal(err)
	}
	for n, phase := range []string{driver.PhaseStarted, driver.PhaseEnded} {
		if err := dir.Append(Event{Seq: n + 1, Phase: phase}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Connect(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	events, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{driver.PhaseStarted, driver.PhaseEnded} {
		if e := <-events; e.Phase != want {
			t.Errorf("event is %+v, want %s", e, want)
		}
	}
}

func TestConnect_knowsWhatIsGone(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		if _, err := Connect(dir); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", dir, err)
		}
		if err := Destroy(t.Context(), dir); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}
}

func TestWait_afterAll(t *testing.T) {
	dir := Dir(t.TempDir())
	if err := writeJSON(string(dir), containerFile, driver.Container{ID: "box"}); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context()); !errors.Is(err, ErrExitUnknown) {
		t.Errorf("a task whose shim never ran: %v", err)
	}
	want := driver.Exit{Code: 9, Result: "text", Ended: time.Unix(5, 0).UTC()}
	if err := dir.SetExit(want); err != nil {
		t.Fatal(err)
	}
	if exit, err := c.Wait(t.Context()); err != nil || exit != want {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestStart_refusesWhatIsInUse(t *testing.T) {
	dir := t.TempDir()
	if err := Dir(dir).SetExit(driver.Exit{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), "/bin/false", dir, driver.Container{ID: "box"}); err == nil || !strings.Contains(err.Error(), "destroyed first") {
		t.Errorf("error is %v", err)
	}
}

func TestParseStart(t *testing.T) {
	line := "42 (a) b) c) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2"
	if got, err := parseStart(line); err != nil || got != 987654 {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", "42 (x)", strings.Replace(line, ") S ", ") Z ", 1)} {
		if _, err := parseStart(bad); err == nil {
			t.Errorf("%q has a start", bad)
		}
	}
}

func TestIdentity(t *testing.T) {
	id, err := identify(os.Getpid())
	if err != nil || !id.alive() {
		t.Fatalf("%+v, %v", id, err)
	}
	for name, other := range map[string]identity{
		"another start":  {PID: id.PID, Start: id.Start + 1, Boot: id.Boot},
		"another boot":   {PID: id.PID, Start: id.Start, Boot: "x"},
		"process 1":      {PID: 1, Start: 0, Boot: id.Boot},
		"nothing at all": {},
	} {
		if other.alive() {
			t.Errorf("%s is taken for us", name)
		}
	}
}

func TestShimCgroup(t *testing.T) {
	for _, test := range []struct {
		cgroup string
		v2     bool
		want   string
	}{
		{"/nomad/alloc.web", false, "/nomad/drover-shims/id"},
		{"/nomad.slice/share.slice/alloc.web.scope", true, "/nomad.slice/drover-shims.slice/id"},
		{"", false, "/drover-shims/id"},
	} {
		if got := shimCgroup(driver.Container{ID: "id", Cgroup: test.cgroup}, test.v2); got != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
	}
}

func TestSignals(t *testing.T) {
	for name, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGHUP": unix.SIGHUP, "hup": unix.SIGHUP, "9": unix.SIGKILL,
		"SIGRTMIN": 34, "RTMIN+3": 37, "SIGRTMAX-1": 63, "RTMAX": 64,
		"RTMIN-1": 0, "RTMAX+1": 0, "RTMINx": 0, "0": 0, "65": 0, "-9": 0, "nonsense": 0,
	} {
		got, err := parseSignal(name)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q is %d, %v; want %d", name, got, err, want)
		}
	}
}
