package logs

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"
)

// nomad answers the few routes that a Reader needs, from what an allocation has written so far. It counts connections,
// unless that is nil.
func nomad(t *testing.T, written *atomic.Pointer[string], connections *atomic.Int32) *api.Client {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, value any) {
		if err := json.NewEncoder(w).Encode(value); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /v1/job/{job}/allocations", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, []api.AllocationListStub{
			{ID: "a1", NodeID: "n1", Name: "job.lrp[1]", TaskStates: map[string]*api.TaskState{"app": {StartedAt: time.Now()}}},
			{ID: "pending", Name: "job.lrp[2]", TaskStates: map[string]*api.TaskState{}},
		})
	})
	mux.HandleFunc("GET /v1/client/fs/logs/{alloc}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("alloc") != "a1" || r.URL.Query().Get("type") == "stderr" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		offset, err := strconv.Atoi(r.URL.Query().Get("offset"))
		if err != nil {
			t.Error(err)
		}
		if r.URL.Query().Get("plain") != "true" {
			t.Error("asked for frames")
		}
		if _, err := io.WriteString(w, (*written.Load())[offset:]); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewUnstartedServer(mux)
	mux.HandleFunc("GET /v1/node/n1", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, api.Node{ID: "n1", HTTPAddr: server.Listener.Addr().String()})
	})
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew && connections != nil {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	client, err := api.NewClient(&api.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestReader_printsWholeLinesOnce(t *testing.T) {
	var written atomic.Pointer[string]
	var out bytes.Buffer
	reader := New(nomad(t, &written, nil), "job", "app", func(index int) string { return "APP/" + strconv.Itoa(index) }, &out)
	for _, text := range []string{"one\ntw", "one\ntwo\n", "one\ntwo\n"} {
		written.Store(&text)
		if err := reader.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := "[APP/1] OUT one\n[APP/1] OUT two\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestReader_keepsItsConnections: Nomad turns away who has more than a hundred, and everybody else on that machine too.
func TestReader_keepsItsConnections(t *testing.T) {
	var written atomic.Pointer[string]
	text := ""
	written.Store(&text)
	var connections atomic.Int32
	reader := New(nomad(t, &written, &connections), "job", "app", strconv.Itoa, io.Discard)
	for range 50 {
		if err := reader.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if made := connections.Load(); made > 5 {
		t.Errorf("50 looks made %d connections", made)
	}
}

func TestReader_removesWhatConfusesATerminal(t *testing.T) {
	var written atomic.Pointer[string]
	text := "a\rb\x07c\td\n"
	written.Store(&text)
	var out bytes.Buffer
	reader := New(nomad(t, &written, nil), "job", "app", strconv.Itoa, &out)
	if err := reader.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), " OUT abc\td\n") {
		t.Errorf("got %q", out.String())
	}
}

func TestIndex(t *testing.T) {
	for name, want := range map[string]int{"lrp-x.lrp[12]": 12, "plain": 0, "odd[x]": 0} {
		if got := index(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}
