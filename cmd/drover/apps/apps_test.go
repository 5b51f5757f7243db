package apps

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/dev"

	"github.com/google/go-cmp/cmp"
	consul "github.com/hashicorp/consul/api"
)

const healthy = `[
  {"Service": {"Address": "127.0.0.1", "Port": 20002, "Meta": {"drover_guid": "0a0a0a0a-0000-4000-8000-000000000001-v2"}}},
  {"Service": {"Address": "127.0.0.1", "Port": 20001, "Meta": {"drover_guid": "0a0a0a0a-0000-4000-8000-000000000001-v2"}}},
  {"Service": {"Address": "127.0.0.1", "Port": 20003, "Meta": {"drover_guid": "0a0a0a0a-0000-4000-8000-000000000001-v1"}}}
]`

func app() recipe.App {
	return recipe.App{
		Name: "hello", ProcessGUID: "0a0a0a0a-0000-4000-8000-000000000001", Version: "v2", Instances: 2,
		Droplet: recipe.Droplet{Lifecycle: recipe.Buildpack},
	}
}

func session(t *testing.T, handler http.HandlerFunc) *Session {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := consul.NewClient(&consul.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &Session{consul: client}
}

func TestURLs_areThoseOfTheCurrentVersion(t *testing.T) {
	s := session(t, func(w http.ResponseWriter, r *http.Request) {
		if want := "/v1/health/service/cf-0a0a0a0a-0000-4000-8000-000000000001"; r.URL.Path != want || r.URL.Query().Get("passing") != "1" {
			t.Errorf("asked for %s, want the healthy ones of %s", r.URL, want)
		}
		if _, err := w.Write([]byte(healthy)); err != nil {
			t.Error(err)
		}
	})
	urls, err := s.AwaitURLs(t.Context(), app())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"http://127.0.0.1:20001", "http://127.0.0.1:20002"}, urls); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestURLs_tellsThatConsulFailed(t *testing.T) {
	s := session(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	if _, err := s.URLs(t.Context(), app()); err == nil || !strings.Contains(err.Error(), "ask Consul for cf-") {
		t.Errorf("got %v", err)
	}
}

func TestOpen_namesMissingCertificates(t *testing.T) {
	_, err := Open(dev.Info{}, &bytes.Buffer{}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestLockedWriter_keepsLinesWhole(t *testing.T) {
	var out bytes.Buffer
	writer := &lockedWriter{to: &out}
	var writers sync.WaitGroup
	for range 10 {
		writers.Go(func() {
			if _, err := writer.Write([]byte("line\n")); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if got := strings.Count(out.String(), "line\n"); got != 10 {
		t.Errorf("%d whole lines", got)
	}
}
