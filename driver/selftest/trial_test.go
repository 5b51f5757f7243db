package selftest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// story is a sequence of outcomes of self-tests.
type story struct {
	outcomes []error
	ran      int
}

func (s *story) run(context.Context, Options) (Result, error) {
	err := s.outcomes[min(s.ran, len(s.outcomes)-1)]
	s.ran++
	return Result{IDMap: err == nil}, err
}

func trial(s *story) *Trial { return &Trial{Run: s.run, Log: slog.New(slog.DiscardHandler)} }

func await(t *testing.T, tr *Trial) {
	t.Helper()
	select {
	case <-tr.Changed():
	case <-time.After(20 * time.Second):
		t.Fatal("no self-test ends")
	}
}

var errBroken = errors.New("time=2026-01-02T03:04:05Z it is\nbroken")

func someKey(t *testing.T) Key {
	t.Helper()
	return Key{Boot: "b", ShimFile: "1", Options: Options{StateDir: t.TempDir()}}
}

func TestTrial_knowsNothingAtFirstAndTriesOnce(t *testing.T) {
	s, k := &story{outcomes: []error{nil}}, someKey(t)
	tr := trial(s)
	if v := tr.Verdict(t.Context(), k); v.Settled {
		t.Errorf("a verdict before the test: %+v", v)
	}
	await(t, tr)
	for range 3 {
		if v := tr.Verdict(t.Context(), k); !v.Settled || v.Cause != "" || !v.Result.IDMap {
			t.Errorf("verdict %+v", v)
		}
	}
	if s.ran != 1 {
		t.Errorf("%d tests were run", s.ran)
	}
}

func TestTrial_aFailureThatDoesNotComeTwiceIsNone(t *testing.T) {
	s, k := &story{outcomes: []error{errBroken, nil}}, someKey(t)
	tr := trial(s)
	tr.Verdict(t.Context(), k)
	await(t, tr)
	if v := tr.Verdict(t.Context(), k); v.Cause != "" || s.ran != 2 {
		t.Errorf("verdict %+v after %d tests", v, s.ran)
	}
}

func TestTrial_aFailureHasOneTextAndIsNotTriedAgainAtOnce(t *testing.T) {
	s, k := &story{outcomes: []error{errBroken}}, someKey(t)
	tr := trial(s)
	tr.Verdict(t.Context(), k)
	await(t, tr)
	for range 3 {
		if v := tr.Verdict(t.Context(), k); v.Cause != "it is; broken" {
			t.Errorf("cause %q", v.Cause)
		}
	}
	if s.ran != confirmations {
		t.Errorf("%d tests were run", s.ran)
	}
}

func TestTrial_theNextPluginRemembersASuccessUnlessSomethingHasChanged(t *testing.T) {
	first, k := trial(&story{outcomes: []error{nil}}), someKey(t)
	first.Verdict(t.Context(), k)
	await(t, first)
	s := &story{outcomes: []error{errBroken}}
	second := trial(s)
	if v := second.Verdict(t.Context(), k); !v.Settled || v.Cause != "" || s.ran != 0 {
		t.Fatalf("verdict %+v after %d tests", v, s.ran)
	}
	k.ShimFile = "2"
	if v := second.Verdict(t.Context(), k); !v.Settled || v.Cause != "" {
		t.Errorf("the old verdict does not stand: %+v", v)
	}
	await(t, second)
	if v := second.Verdict(t.Context(), k); !strings.Contains(v.Cause, "broken") {
		t.Errorf("the new shim was not tried: %+v", v)
	}
	k.Boot = "c"
	third := trial(&story{outcomes: []error{nil}})
	if v := third.Verdict(t.Context(), k); v.Settled {
		t.Errorf("a verdict survived a reboot: %+v", v)
	}
	await(t, third)
}
