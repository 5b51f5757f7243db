//go:build root

package image

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/drivertest"
)

// downable is a registry that can be switched off.
func downable(t *testing.T) (*proxy, *atomic.Pointer[http.HandlerFunc]) {
	t.Helper()
	var answer atomic.Pointer[http.HandlerFunc]
	front := newProxy(t, drivertest.Serve(t), func(w http.ResponseWriter, r *http.Request) bool {
		if instead := answer.Load(); instead != nil {
			(*instead)(w, r)
			return true
		}
		return false
	})
	return front, &answer
}

func TestPull_aTagWithoutItsRegistry(t *testing.T) {
	front, answer := downable(t)
	ref := drivertest.Push(t, front.host, "team/app:1", sample(t))
	s := real(t, nil)
	s.quiet.after = 0
	first, err := s.Pull(t.Context(), Request{Ref: ref}, nil)
	if err != nil || first.Unconfirmed != nil {
		t.Fatal(err, first.Unconfirmed)
	}
	status := func(code int) *http.HandlerFunc {
		f := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		return &f
	}
	silence := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, row := range map[string]struct {
		answer *http.HandlerFunc
		ask    Request
		want   error // nil: the cached image
	}{
		"it is broken":               {status(503), Request{Ref: ref}, nil},
		"it has too much to do":      {status(429), Request{Ref: ref}, nil},
		"it says nothing":            {&silence, Request{Ref: ref}, nil},
		"it refuses us now":          {status(401), Request{Ref: ref}, ErrUnauthorized},
		"the tag is gone":            {status(404), Request{Ref: ref}, ErrNotFound},
		"force_pull":                 {status(503), Request{Ref: ref, Force: true}, ErrUnreachable},
		"another user's":             {status(503), Request{Ref: ref, Auth: &Auth{Username: "u", Password: "p"}}, ErrUnreachable},
		"a tag that was not here":    {status(503), Request{Ref: front.host + "/team/app:2"}, ErrUnreachable},
		"a tag of another platform":  {status(503), Request{Ref: ref, Platform: "linux/s390x"}, ErrUnreachable},
		"broken, asked as docker://": {status(503), Request{Ref: "docker://" + ref}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			answer.Store(row.answer)
			got, err := s.Pull(t.Context(), row.ask, nil)
			switch {
			case row.want != nil && !errors.Is(err, row.want):
				t.Errorf("got %v, want %v", err, row.want)
			case row.want == nil && (err != nil || got.Digest != first.Digest || !errors.Is(got.Unconfirmed, ErrUnreachable)):
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// A node full of cached images does not wait again and again.
func TestPull_remembersSilence(t *testing.T) {
	front, answer := downable(t)
	ref := drivertest.Push(t, front.host, "team/app:1", sample(t))
	s := real(t, nil)
	if _, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
		t.Fatal(err)
	}
	silence := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	answer.Store(&silence)
	if _, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
		t.Fatal(err)
	}
	front.all.Store(0)
	for range 50 {
		if got, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil || got.Unconfirmed == nil {
			t.Fatal(err)
		}
	}
	if front.all.Load() != 0 {
		t.Errorf("50 starts asked the silent registry %d times", front.all.Load())
	}
	s.quiet.until[front.host] = time.Now()
	answer.Store(nil)
	if got, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil || got.Unconfirmed != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPull_aTagThatMoved(t *testing.T) {
	front, _ := downable(t)
	ref := drivertest.Push(t, front.host, "team/app:1", sample(t))
	s := real(t, nil)
	if _, err := s.Pull(t.Context(), Request{Ref: ref}, nil); err != nil {
		t.Fatal(err)
	}
	moved := drivertest.Image(t, driver.ImageConfig{}, drivertest.Tar(t, drivertest.File("new", 0o644, "1")))
	drivertest.Push(t, front.host, "team/app:1", moved)
	got, err := s.Pull(t.Context(), Request{Ref: ref}, nil)
	if want, _ := moved.Digest(); err != nil || got.Digest != want.String() {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Two images of different repositories that share a layer transfer it once.
func TestPull_sharedLayersOnce(t *testing.T) {
	upstream := drivertest.Serve(t)
	shared := drivertest.Tar(t, drivertest.File("shared", 0o644, noise(1<<20)))
	for _, repository := range []string{"a/one:1", "b/two:1"} {
		drivertest.Push(t, upstream, repository, drivertest.Image(t, driver.ImageConfig{}, shared, drivertest.Tar(t, drivertest.File(repository, 0o644, repository))))
	}
	front := newProxy(t, upstream, nil)
	s := real(t, nil)
	errs := make(chan error, 20)
	for n := range 20 {
		go func() {
			_, err := s.Pull(t.Context(), Request{Ref: front.host + []string{"/a/one:1", "/b/two:1"}[n%2]}, nil)
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := front.blobs.Load(); got != 5 { // two configurations, one shared layer, one more for each
		t.Errorf("%d blobs were read by 20 pulls of two images", got)
	}
}
