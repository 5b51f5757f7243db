//go:build root

package image

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"drover/driver/drivertest"
)

// tokens is a registry that wants tokens of a server, and that server, which wants a password.
type tokens struct {
	host    string
	asked   atomic.Int32
	secrets atomic.Int32 // requests with a password
}

// newTokens makes such a registry; realm is where it says that tokens are, with the token server's path.
func newTokens(t *testing.T, upstream string, realm func(own string) string) *tokens {
	t.Helper()
	k := &tokens{}
	server := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			k.serve(w, r)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm("http://"+r.Host)+`",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	k.host = server.host
	return k
}

func (k *tokens) serve(w http.ResponseWriter, r *http.Request) {
	k.asked.Add(1)
	user, password, ok := r.BasicAuth()
	if ok {
		k.secrets.Add(1)
	}
	if user != "u" || password != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"token": "good"})
}

func TestPull_tokens(t *testing.T) {
	upstream := drivertest.Serve(t)
	drivertest.Push(t, upstream, "team/app:1", sample(t))
	k := newTokens(t, upstream, func(own string) string { return own + "/token" })
	node := func(auth *Auth, err error) func(context.Context, string, string) (*Auth, error) {
		return func(context.Context, string, string) (*Auth, error) { return auth, err }
	}
	broken := errors.New("the helper is broken")
	for name, row := range map[string]struct {
		ask  Request
		want error
	}{
		"the task's":                    {Request{Auth: &Auth{Username: "u", Password: "secret"}}, nil},
		"the node's":                    {Request{Login: node(&Auth{Username: "u", Password: "secret"}, nil)}, nil},
		"the task's before the node's":  {Request{Auth: &Auth{Username: "u", Password: "wrong-secret"}, Login: node(&Auth{Username: "u", Password: "secret"}, nil)}, ErrUnauthorized},
		"nobody's":                      {Request{Login: node(nil, nil)}, ErrUnauthorized},
		"a node's that cannot be found": {Request{Login: node(nil, broken)}, ErrUnauthorized},
		"soft, but private":             {Request{Login: node(nil, broken), AuthSoftFail: true}, ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			row.ask.Ref = k.host + "/team/app:1"
			_, err := real(t, nil).Pull(t.Context(), row.ask, nil)
			if !errors.Is(err, row.want) || err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

// Whom a public registry refuses, or who cannot be found, is nobody when the job says so.
func TestPull_authSoftFail(t *testing.T) {
	upstream := drivertest.Serve(t)
	ref := drivertest.Push(t, upstream, "team/app:1", sample(t))
	picky := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); ok {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	wrong := &Auth{Username: "u", Password: "old"}
	lost := func(context.Context, string, string) (*Auth, error) { return nil, errors.New("no helper") }
	for _, soft := range []bool{false, true} {
		_, err := real(t, nil).Pull(t.Context(), Request{Ref: picky.host + "/team/app:1", Auth: wrong, AuthSoftFail: soft}, nil)
		if (err == nil) != soft {
			t.Errorf("refused, soft %v: %v", soft, err)
		}
		_, err = real(t, nil).Pull(t.Context(), Request{Ref: ref, Login: lost, AuthSoftFail: soft}, nil)
		if (err == nil) != soft {
			t.Errorf("not found, soft %v: %v", soft, err)
		}
	}
}

// A registry's word is not enough to send a password, or the node, elsewhere.
func TestPull_realmsElsewhere(t *testing.T) {
	upstream := drivertest.Serve(t)
	drivertest.Push(t, upstream, "team/app:1", sample(t))
	thief := &tokens{}
	elsewhere := httptest.NewServer(http.HandlerFunc(thief.serve))
	t.Cleanup(elsewhere.Close)
	named := strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
	for name, realm := range map[string]string{
		"another host":         named + "/token",
		"metadata":             "http://169.254.169.254/latest/token",
		"metadata over v6":     "http://[fd00:ec2::254]/token",
		"metadata as v4 in v6": "http://[::ffff:169.254.169.254]/token",
		"no URL":               "::",
		"a file":               "file:///etc/passwd",
	} {
		t.Run(name, func(t *testing.T) {
			k := newTokens(t, upstream, func(string) string { return realm })
			_, err := real(t, nil).Pull(t.Context(), Request{Ref: k.host + "/team/app:1", Auth: &Auth{Username: "u", Password: "secret"}}, nil)
			if err == nil || thief.secrets.Load() != 0 || strings.Contains(err.Error(), "secret") {
				t.Errorf("%d passwords were sent, %v", thief.secrets.Load(), err)
			}
		})
	}
}

// Blobs are often elsewhere: they are fetched from there, without the registry's token.
func TestPull_blobsElsewhere(t *testing.T) {
	upstream := drivertest.Serve(t)
	drivertest.Push(t, upstream, "team/app:1", sample(t))
	var leaked atomic.Bool
	store := newProxy(t, upstream, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		return false
	})
	elsewhere := strings.Replace(store.host, "127.0.0.1", "localhost", 1)
	front := newProxy(t, upstream, func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, "http://"+elsewhere+r.URL.Path+"?X-Signature=1", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	_, err := real(t, nil).Pull(t.Context(), Request{Ref: front.host + "/team/app:1", Auth: &Auth{Username: "u", Password: "secret"}}, nil)
	if err != nil || leaked.Load() || store.blobs.Load() == 0 {
		t.Errorf("leaked %v, %d blobs, %v", leaked.Load(), store.blobs.Load(), err)
	}
}
