package nomad

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// fakeNomad keeps variables and jobs as Nomad's API does, as far as failures are concerned that a real agent has no
// handle for.
type fakeNomad struct {
	mu        sync.Mutex
	index     uint64
	variables map[string]*api.Variable
	jobs      map[string]*api.Job
	// fail is asked before each request; a status other than 0 is its answer.
	fail func(r *http.Request) int
}

// newFake returns a Runtime on a fake Nomad. Its index has been listed once and is not watched.
func newFake(t *testing.T, now func() time.Time) (*Runtime, *fakeNomad) {
	t.Helper()
	fake := &fakeNomad{index: 10, variables: map[string]*api.Variable{}, jobs: map[string]*api.Job{}}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	client, err := api.NewClient(&api.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := New(Config{Client: client, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	runtime.records.health.set(nil)
	runtime.allocs.health.set(nil)
	return runtime, fake
}

func (f *fakeNomad) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if status := f.fail(r); status != 0 {
			http.Error(w, "it fails", status)
			return
		}
	}
	f.index++
	w.Header().Set("X-Nomad-Index", strconv.FormatUint(f.index, 10))
	path, variable := strings.CutPrefix(r.URL.Path, "/v1/var/")
	switch {
	case variable:
		f.variable(w, r, path)
	case r.URL.Path == "/v1/jobs" && r.Method == http.MethodPut:
		var request api.JobRegisterRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.jobs[*request.Job.ID] = request.Job
		answer(w, api.JobRegisterResponse{})
	case r.URL.Path == "/v1/jobs":
		list := []*api.JobListStub{}
		for id := range f.jobs {
			list = append(list, &api.JobListStub{ID: id})
		}
		answer(w, list)
	case strings.HasPrefix(r.URL.Path, "/v1/job/") && r.Method == http.MethodDelete:
		delete(f.jobs, strings.TrimPrefix(r.URL.Path, "/v1/job/"))
		answer(w, api.JobDeregisterResponse{})
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeNomad) variable(w http.ResponseWriter, r *http.Request, path string) {
	known := f.variables[path]
	if cas := r.URL.Query().Get("cas"); cas != "" {
		var at uint64
		if known != nil {
			at = known.ModifyIndex
		}
		if cas != strconv.FormatUint(at, 10) {
			w.WriteHeader(http.StatusConflict)
			answer(w, &api.Variable{Path: path, ModifyIndex: at})
			return
		}
	}
	switch r.Method {
	case http.MethodPut:
		written := &api.Variable{}
		if err := json.NewDecoder(r.Body).Decode(written); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		written.CreateIndex, written.ModifyIndex = f.index, f.index
		if known != nil {
			written.CreateIndex = known.CreateIndex
		}
		f.variables[path] = written
		answer(w, written)
	case http.MethodDelete:
		delete(f.variables, path)
		w.WriteHeader(http.StatusNoContent)
	default:
		if known == nil {
			http.NotFound(w, r)
			return
		}
		answer(w, known)
	}
}

func answer(w http.ResponseWriter, value any) { _ = json.NewEncoder(w).Encode(value) }

// paths lists what is kept, in order.
func (f *fakeNomad) paths() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var paths []string
	for path := range f.variables {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}
