package diego

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"drover/bridge/mtls"

	"code.cloudfoundry.org/bbs/models"
	"github.com/gogo/protobuf/proto"
	"github.com/google/go-cmp/cmp"
)

// bbs serves one handler over mutual TLS and returns a client of it.
func bbs(t *testing.T, handler http.HandlerFunc) (*Client, *httptest.Server) {
	t.Helper()
	authority, err := mtls.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(t.TempDir(), "bbs", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	identity, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = identity.Server()
	server.StartTLS()
	t.Cleanup(server.Close)
	return New(server.URL, identity), server
}

func write(t *testing.T, w io.Writer, message proto.Message) {
	t.Helper()
	body, err := proto.Marshal(message)
	if err != nil {
		t.Error(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Error(err)
	}
}

func TestClient_callsTheRoutesOfCloudController(t *testing.T) {
	var called []string
	client, _ := bbs(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s with content type %q", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		}
		called = append(called, r.URL.Path)
		w.WriteHeader(http.StatusOK)
	})
	ctx := t.Context()
	for _, call := range []func() error{
		func() error { return client.UpsertDomain(ctx, "d", time.Minute) },
		func() error { return client.DesireTask(ctx, "t", "d", &models.TaskDefinition{}) },
		func() error { _, err := client.Task(ctx, "t"); return err },
		func() error { return client.CancelTask(ctx, "t") },
		func() error { return client.DesireLRP(ctx, &models.DesiredLRP{}) },
		func() error { _, err := client.DesiredLRP(ctx, "p"); return err },
		func() error { return client.UpdateLRP(ctx, "p", &models.DesiredLRPUpdate{}) },
		func() error { return client.RemoveLRP(ctx, "p") },
		func() error { _, err := client.SchedulingInfos(ctx, "d"); return err },
		func() error { _, err := client.ActualLRPs(ctx, "p"); return err },
	} {
		if err := call(); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"/v1/domains/upsert", "/v1/tasks/desire.r2", "/v1/tasks/get_by_task_guid.r2", "/v1/tasks/cancel",
		"/v1/desired_lrp/desire.r2", "/v1/desired_lrps/get_by_process_guid.r2", "/v1/desired_lrp/update",
		"/v1/desired_lrp/remove", "/v1/desired_lrp_scheduling_infos/list", "/v1/actual_lrps/list",
	}
	if diff := cmp.Diff(want, called); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestClient_tellsWhatTheBBSAnswered(t *testing.T) {
	client, _ := bbs(t, func(w http.ResponseWriter, _ *http.Request) {
		write(t, w, &models.DesiredLRPResponse{Error: models.ErrResourceNotFound})
	})
	_, err := client.DesiredLRP(t.Context(), "nobody")
	if !IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}

func TestClient_doesNotRetryAnAnswer(t *testing.T) {
	var calls atomic.Int32
	client, _ := bbs(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if err := client.RemoveLRP(t.Context(), "p"); err == nil || calls.Load() != 1 {
		t.Errorf("got %v after %d calls, want one call and an error", err, calls.Load())
	}
}

func TestClient_retriesUntilItIsAnswered(t *testing.T) {
	var calls atomic.Int32
	client, _ := bbs(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			panic(http.ErrAbortHandler) // cuts the connection
		}
		write(t, w, &models.DesiredLRPLifecycleResponse{})
	})
	if err := client.RemoveLRP(t.Context(), "p"); err != nil {
		t.Error(err)
	}
	if calls.Load() < 2 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestClient_givesUpWhenNobodyIsThere(t *testing.T) {
	client, server := bbs(t, func(http.ResponseWriter, *http.Request) {})
	server.Close()
	client.patience = 10 * time.Millisecond
	if err := client.RemoveLRP(context.Background(), "p"); err == nil {
		t.Error("no error from a BBS that is gone")
	}
}
