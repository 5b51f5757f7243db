package bbs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	diego "code.cloudfoundry.org/bbs"
	"code.cloudfoundry.org/bbs/models"
	"code.cloudfoundry.org/lager/v3"
	"github.com/google/go-cmp/cmp"

	"drover/bridge"
	"drover/bridge/bridgetest"
	"drover/bridge/mtls"
)

// platform is a door on a real listener with real certificates, and Diego's own client in front of it.
type platform struct {
	t      *testing.T
	url    string
	files  mtls.Files
	client diego.InternalClient
	log    lager.Logger
}

func newPlatform(t *testing.T, runtime bridge.Runtime) *platform {
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
	log := slog.New(slog.DiscardHandler)
	server := NewServer(Handler(runtime, log), log)
	server.TLSConfig = identity.Server()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended with %v", err)
		}
	})
	url := "https://" + listener.Addr().String()
	client, err := diego.NewClientWithConfig(diego.ClientConfig{
		URL: url, IsTLS: true, CAFile: files.CA, CertFile: files.Cert, KeyFile: files.Key,
		Retries: 1, RequestTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &platform{t: t, url: url, files: files, client: client, log: lager.NewLogger("test")}
}

// call does by hand what Diego's client has no method for: the older routes that Cloud Controller reads.
func (p *platform) call(path string, request message, response interface{ Unmarshal([]byte) error }) {
	p.t.Helper()
	body, err := request.Marshal()
	if err != nil {
		p.t.Fatal(err)
	}
	identity, err := p.files.Load()
	if err != nil {
		p.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: identity.Client()}
	defer transport.CloseIdleConnections()
	q, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := (&http.Client{Transport: transport}).Do(q)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	data, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: status %d, %v", path, r.StatusCode, err)
	}
	if err := response.Unmarshal(data); err != nil {
		p.t.Fatal(err)
	}
}

// must ends the test when Diego's client got an error.
func (p *platform) must(what string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

func (p *platform) refused(what string, err, want error) {
	p.t.Helper()
	var got *models.Error
	if !errors.As(err, &got) || !got.Equal(want) || got.Message != want.Error() {
		p.t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func TestClient_LRP(t *testing.T) {
	runtime := bridgetest.NewMemory(time.Now)
	p := newPlatform(t, runtime)
	if !p.client.Ping(p.log, "trace") {
		t.Fatal("the door does not answer a ping")
	}
	lrp := bridgetest.LRP("one")
	p.must("desire", p.client.DesireLRP(p.log, "trace", lrp))
	p.refused("desire again", p.client.DesireLRP(p.log, "trace", lrp), models.ErrResourceExists)

	actuals, err := p.client.ActualLRPs(p.log, "trace", models.ActualLRPFilter{ProcessGuid: "one"})
	p.must("list instances", err)
	if len(actuals) != 2 || actuals[0].State != models.ActualLRPStateUnclaimed || actuals[1].Index != 1 {
		t.Fatalf("instances right after desire: %v", actuals)
	}

	var got models.DesiredLRPResponse
	p.call("/v1/desired_lrps/get_by_process_guid.r2", &models.DesiredLRPByProcessGuidRequest{ProcessGuid: "one"}, &got)
	if diff := cmp.Diff((*lrp.Routes)["diego-ssh"], (*got.DesiredLrp.Routes)["diego-ssh"]); diff != "" {
		t.Errorf("the route's bytes were changed (-want +got):\n%s", diff)
	}

	update := &models.DesiredLRPUpdate{}
	update.SetInstances(3)
	update.SetAnnotation("2.0")
	p.must("update", p.client.UpdateDesiredLRP(p.log, "trace", "one", update))
	p.refused("update nothing", p.client.UpdateDesiredLRP(p.log, "trace", "none", update), models.ErrResourceNotFound)
	infos, err := p.client.DesiredLRPSchedulingInfos(p.log, "trace", models.DesiredLRPFilter{Domain: lrp.Domain})
	p.must("list", err)
	if len(infos) != 1 || infos[0].Instances != 3 || infos[0].Annotation != "2.0" || len(infos[0].Routes) != len(*lrp.Routes) {
		t.Errorf("scheduling infos after the update: %v", infos)
	}

	actuals, err = p.client.ActualLRPsByProcessGuids(p.log, "trace", []string{"one", "none"})
	p.must("list instances of many", err)
	if len(actuals) != 3 {
		t.Errorf("%d instances, want 3", len(actuals))
	}
	key := models.NewActualLRPKey("one", 2, lrp.Domain)
	p.must("retire", p.client.RetireActualLRP(p.log, "trace", &key))

	p.must("remove", p.client.RemoveDesiredLRP(p.log, "trace", "one"))
	p.refused("remove again", p.client.RemoveDesiredLRP(p.log, "trace", "one"), models.ErrResourceNotFound)
}

func TestClient_runningInstance(t *testing.T) {
	runtime := bridgetest.NewMemory(time.Now)
	p := newPlatform(t, runtime)
	lrp := bridgetest.LRP("one")
	p.must("desire", p.client.DesireLRP(p.log, "trace", lrp))
	where := models.NewActualLRPNetInfo("10.0.0.1", "172.26.64.2", models.ActualLRPNetInfo_PreferredAddressHost, models.NewPortMapping(20001, 8080))
	runtime.RunLRP(t, "one", 1, models.NewActualLRPInstanceKey("instance", "cell"), where)

	index := int32(1)
	actuals, err := p.client.ActualLRPs(p.log, "trace", models.ActualLRPFilter{ProcessGuid: "one", Index: &index})
	p.must("list", err)
	if len(actuals) != 1 || actuals[0].State != models.ActualLRPStateRunning || actuals[0].InstanceGuid != "instance" {
		t.Fatalf("instance 1: %v", actuals)
	}
	if diff := cmp.Diff(where, actuals[0].ActualLRPNetInfo); diff != "" {
		t.Errorf("net info (-want +got):\n%s", diff)
	}
}

func TestClient_Task(t *testing.T) {
	runtime := bridgetest.NewMemory(time.Now)
	p := newPlatform(t, runtime)
	task := bridgetest.Task()
	p.must("desire", p.client.DesireTask(p.log, "trace", "stage", "cf-app-staging", task))
	p.refused("desire again", p.client.DesireTask(p.log, "trace", "stage", "cf-tasks", task), models.ErrResourceExists)

	var list, other models.TasksResponse
	p.call("/v1/tasks/list.r2", &models.TasksRequest{Domain: "cf-app-staging"}, &list)
	if len(list.Tasks) != 1 || list.Tasks[0].State != models.Task_Pending {
		t.Errorf("tasks right after desire: %v", list.Tasks)
	}
	p.call("/v1/tasks/list.r2", &models.TasksRequest{Domain: "cf-tasks"}, &other)
	if len(other.Tasks) != 0 {
		t.Errorf("tasks of another domain: %v", other.Tasks)
	}

	p.must("cancel", p.client.CancelTask(p.log, "trace", "stage"))
	var one models.TaskResponse
	p.call("/v1/tasks/get_by_task_guid.r2", &models.TaskByGuidRequest{TaskGuid: "stage"}, &one)
	if one.Task.State != models.Task_Completed || !one.Task.Failed || one.Task.FailureReason != "task was cancelled" {
		t.Errorf("the canceled task: %v", one.Task)
	}
	p.refused("cancel again", p.client.CancelTask(p.log, "trace", "stage"),
		models.NewTaskTransitionError(models.Task_Completed, models.Task_Completed))
	p.refused("cancel nothing", p.client.CancelTask(p.log, "trace", "none"), models.ErrResourceNotFound)
}

func TestClient_Domain(t *testing.T) {
	runtime := bridgetest.NewMemory(time.Now)
	p := newPlatform(t, runtime)
	p.must("upsert", p.client.UpsertDomain(p.log, "trace", "cf-apps", 2*time.Minute))
	fresh, err := runtime.FreshDomains(t.Context())
	p.must("fresh domains", err)
	if diff := cmp.Diff([]string{"cf-apps"}, fresh); diff != "" {
		t.Errorf("fresh domains (-want +got):\n%s", diff)
	}
}

func TestClient_fallsBackOnRoutesThatAreNotServed(t *testing.T) {
	p := newPlatform(t, bridgetest.NewMemory(time.Now))
	_, err := p.client.Cells(p.log, "trace")
	p.refused("cells", err, diego.EndpointNotFoundErr)
}

func TestClient_hearsOfInvalidRequests(t *testing.T) {
	p := newPlatform(t, bridgetest.NewMemory(time.Now))
	lrp := bridgetest.LRP("not a guid")
	raw := json.RawMessage("{}")
	lrp.Routes = &models.Routes{"x": &raw}
	lrp.MetricTags = nil
	p.refused("desire", p.client.DesireLRP(p.log, "trace", lrp),
		models.NewError(models.Error_InvalidRequest, "Invalid field: metric_tags, Invalid field: process_guid"))
}
