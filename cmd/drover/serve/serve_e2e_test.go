//go:build e2e

package serve

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	diego "code.cloudfoundry.org/bbs"
	"code.cloudfoundry.org/bbs/models"
	"code.cloudfoundry.org/lager/v3"

	"drover/bridge/bridgetest"
	"drover/e2e/agent"
)

// cluster is a Nomad, and what a bridge in front of it needs.
type cluster struct {
	config Config
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	nomad, err := agent.Start(t.Context(), agent.Config{Dir: t.TempDir(), NoConsul: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := nomad.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{config: Default()}
	*c.config.TLS = TLS(issue(t))
	*c.config.Listen = Listen{BBS: "127.0.0.1:0", Files: "127.0.0.1:0", Uploader: "127.0.0.1:0"}
	c.config.StaticDir = t.TempDir()
	c.config.Nomad.Address = nomad.NomadAddr
	c.config.Nomad.Services, c.config.Nomad.NetworkMode = "nomad", "host"
	if err := c.config.Check(); err != nil {
		t.Fatal(err)
	}
	return c
}

// bridge starts one and returns Diego's client of it, and what ends it.
func (c *cluster) bridge(t *testing.T) (client diego.InternalClient, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	go func() { ended <- Run(ctx, c.config, log, func(a Addresses) { ready <- a }) }()
	var addresses Addresses
	select {
	case addresses = <-ready:
	case err := <-ended:
		t.Fatalf("the bridge did not start: %v", err)
	}
	files := c.config.TLS
	client, err := diego.NewClient("https://"+addresses.BBS.String(), files.CA, files.Cert, files.Key, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return client, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the bridge ended with %v", err)
		}
	}
}

// controller is a Cloud Controller that can be down.
type controller struct {
	*httptest.Server
	up    atomic.Bool
	calls atomic.Int32
	heard chan models.TaskCallbackResponse
}

func (c *cluster) controller(t *testing.T) *controller {
	t.Helper()
	cc := &controller{heard: make(chan models.TaskCallbackResponse, 10)}
	cc.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cc.calls.Add(1)
		var got models.TaskCallbackResponse
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || !cc.up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		cc.heard <- got
	}))
	identity, err := c.config.toCC().Load()
	if err != nil {
		t.Fatal(err)
	}
	cc.TLS = identity.Server()
	cc.StartTLS()
	t.Cleanup(cc.Close)
	return cc
}

// until waits for a condition and says what it waited for.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s", what)
		}
	}
}

// Cloud Controller is down when a Task ends, and the bridge is started anew before it comes back.
func TestRun_keepsResultsThroughARestart(t *testing.T) {
	c := startCluster(t)
	cc := c.controller(t)
	log := lager.NewLogger("test")
	client, stop := c.bridge(t)
	task := bridgetest.Task()
	task.CompletionCallbackUrl = cc.URL + "/internal/v4/tasks/one/completed"
	if err := client.DesireTask(log, "trace", "one", "cf-tasks", task); err != nil {
		t.Fatal(err)
	}
	if err := client.CancelTask(log, "trace", "one"); err != nil {
		t.Fatal(err)
	}
	until(t, "the first call to Cloud Controller", func() bool { return cc.calls.Load() > 0 })
	stop()

	cc.up.Store(true)
	client, stop = c.bridge(t)
	defer stop()
	if err := client.CancelTask(log, "trace", "one"); err == nil {
		t.Error("the task was forgotten with the first bridge")
	}
	select {
	case got := <-cc.heard:
		if got.TaskGuid != "one" || !got.Failed || got.FailureReason != "task was cancelled" {
			t.Errorf("Cloud Controller heard %+v", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("Cloud Controller never heard of the task's end")
	}
	until(t, "the task to be deleted", func() bool {
		err := client.CancelTask(log, "trace", "one")
		return models.ErrResourceNotFound.Equal(err)
	})
}

func TestRun_servesLRPsFromNomad(t *testing.T) {
	c := startCluster(t)
	log := lager.NewLogger("test")
	client, stop := c.bridge(t)
	defer func() { stop() }()
	if err := client.UpsertDomain(log, "trace", "cf-apps", 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	lrp := bridgetest.LRP("one")
	if err := client.DesireLRP(log, "trace", lrp); err != nil {
		t.Fatal(err)
	}
	if err := client.DesireLRP(log, "trace", lrp); !models.ErrResourceExists.Equal(err) {
		t.Errorf("desired twice: %v", err)
	}
	stop() // Another bridge must know all of it.
	client, stop = c.bridge(t)
	update := &models.DesiredLRPUpdate{}
	update.SetInstances(3)
	if err := client.UpdateDesiredLRP(log, "trace", "one", update); err != nil {
		t.Fatal(err)
	}
	actuals, err := client.ActualLRPs(log, "trace", models.ActualLRPFilter{ProcessGuid: "one"})
	if err != nil || len(actuals) != 3 || actuals[2].State != models.ActualLRPStateUnclaimed {
		t.Errorf("instances after scaling: %v, %v", actuals, err)
	}
	until(t, "a placement error, as no node has the driver", func() bool {
		actuals, err := client.ActualLRPs(log, "trace", models.ActualLRPFilter{ProcessGuid: "one"})
		return err == nil && len(actuals) == 3 && actuals[0].PlacementError != ""
	})
	if err := client.RemoveDesiredLRP(log, "trace", "one"); err != nil {
		t.Fatal(err)
	}
	until(t, "the instances to vanish", func() bool {
		actuals, err := client.ActualLRPs(log, "trace", models.ActualLRPFilter{ProcessGuid: "one"})
		return err == nil && len(actuals) == 0
	})
}
