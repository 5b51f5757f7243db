package bbs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/bridge"
	"drover/bridge/bridgetest"
)

// scripted is a Runtime that gives one answer to everything the tests of the wire ask of it.
type scripted struct {
	bridge.Runtime
	err      error
	lrp      *models.DesiredLRP
	infos    []*models.DesiredLRPSchedulingInfo
	actuals  []*models.ActualLRP
	tasks    []*models.Task
	filter   bridge.ActualFilter
	canceled bool
}

func (s *scripted) UpsertDomain(context.Context, string, time.Duration) error { return s.err }
func (s *scripted) RemoveLRP(ctx context.Context, _ string) error {
	s.canceled = ctx.Err() != nil
	return s.err
}
func (s *scripted) DesireTask(context.Context, string, string, *models.TaskDefinition) error {
	return s.err
}
func (s *scripted) DesiredLRP(context.Context, string) (*models.DesiredLRP, error) {
	return s.lrp, s.err
}
func (s *scripted) SchedulingInfos(context.Context, bridge.LRPFilter) ([]*models.DesiredLRPSchedulingInfo, error) {
	return s.infos, s.err
}
func (s *scripted) ActualLRPs(_ context.Context, filter bridge.ActualFilter) ([]*models.ActualLRP, error) {
	s.filter = filter
	return s.actuals, s.err
}
func (s *scripted) Tasks(context.Context, bridge.TaskFilter) ([]*models.Task, error) {
	return s.tasks, s.err
}

// post sends raw bytes and returns the whole answer.
func post(t *testing.T, runtime bridge.Runtime, path string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	return do(t, runtime, http.MethodPost, path, body)
}

func do(t *testing.T, runtime bridge.Runtime, method, path string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
	Handler(runtime, slog.New(slog.DiscardHandler)).ServeHTTP(recorder, request)
	return recorder
}

func encode(t *testing.T, m message) []byte {
	t.Helper()
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// refusedWith decodes field 1 of a response, whatever the response's type.
func refusedWith(t *testing.T, response *httptest.ResponseRecorder) *models.Error {
	t.Helper()
	if response.Code != http.StatusOK {
		t.Fatalf("status %d, want 200 with an error inside", response.Code)
	}
	var m models.TaskLifecycleResponse
	if err := m.Unmarshal(response.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if m.Error == nil {
		t.Fatal("no error in field 1")
	}
	return m.Error
}

func TestWire_bytes(t *testing.T) {
	for _, c := range []struct {
		promise, path string
		runtime       scripted
		body          []byte
		want          string
	}{
		{"ping is available", "/v1/ping", scripted{}, nil, "\x08\x01"},
		{"ping does not ask the runtime", "/v1/ping", scripted{err: errors.New("down")}, nil, "\x08\x01"},
		{"an empty body is an empty message", "/v1/tasks/list.r2", scripted{}, nil, ""},
		{"success without content is empty", "/v1/domains/upsert", scripted{}, []byte("\x0a\x01d\x10\x78"), ""},
		{"an error is type and text in field 1", "/v1/domains/upsert", scripted{}, nil,
			"\x0a\x19\x08\x04\x12\x15Invalid field: domain"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			response := post(t, &c.runtime, c.path, c.body)
			got := response.Body.Bytes()
			if string(got) != c.want {
				t.Errorf("body %q, want %q", got, c.want)
			}
			if length := response.Header().Get("Content-Length"); length != fmt.Sprint(len(c.want)) {
				t.Errorf("Content-Length %q, want %d", length, len(c.want))
			}
			if kind := response.Header().Get("Content-Type"); kind != "application/x-protobuf" {
				t.Errorf("Content-Type %q", kind)
			}
		})
	}
}

func TestWire_refusals(t *testing.T) {
	const guid = "\x0a\x01g" // field 1 holds "g"
	timeoutOfNothing := &models.DesireTaskRequest{TaskGuid: "g", Domain: "d", TaskDefinition: &models.TaskDefinition{
		RootFs: "preloaded:x", Action: &models.Action{TimeoutAction: &models.TimeoutAction{TimeoutMs: 1, Action: &models.Action{}}},
	}}
	type row struct {
		promise, path string
		runtime       scripted
		body          string
		kind          models.Error_Type
		text          string
	}
	for _, c := range []row{
		{"an undecodable body is a bad request", "/v1/tasks/cancel", scripted{}, "\xff\xff", models.Error_InvalidRequest, "the request received is invalid"},
		{"a missing guid is an invalid field", "/v1/tasks/cancel", scripted{}, "", models.Error_InvalidRequest, "Invalid field: task_guid"},
		{"no guids are no request", "/v1/actual_lrps/list_by_process_guids", scripted{}, "", models.Error_InvalidRequest, "process_guids must not be empty"},
		{"a timeout of nothing is a bad request", "/v1/tasks/desire.r2", scripted{}, string(encode(t, timeoutOfNothing)), models.Error_InvalidRequest, incomplete},
		{"an LRP of nothing is a bad request", "/v1/desired_lrp/desire.r2", scripted{}, "", models.Error_InvalidRequest, "Invalid field: desired_lrp"},
		{"an oversized body is a bad request", "/v1/desired_lrp/remove", scripted{}, strings.Repeat("x", maxBody+1), models.Error_InvalidRequest, "the request is larger than 10485760 bytes"},
		{"what is missing is not found", "/v1/desired_lrp/remove", scripted{err: models.ErrResourceNotFound}, guid, models.Error_ResourceNotFound, "the requested resource could not be found"},
		{"a wrapped error is found", "/v1/desired_lrps/get_by_process_guid.r2", scripted{err: fmt.Errorf("read: %w", models.ErrResourceNotFound)}, guid, models.Error_ResourceNotFound, "the requested resource could not be found"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			got := refusedWith(t, post(t, &c.runtime, c.path, []byte(c.body)))
			if got.Type != c.kind || !strings.HasPrefix(got.Message, c.text) {
				t.Errorf("refused with %v %q, want %v %q", got.Type, got.Message, c.kind, c.text)
			}
		})
	}
}

func TestWire_statuses(t *testing.T) {
	down := errors.New("no cluster leader")
	for _, c := range []struct {
		promise, method, path string
		err                   error
		want                  int
	}{
		{"a route that we do not serve is unknown", http.MethodPost, "/v1/tasks/list.r3", nil, 404},
		{"an event stream is unknown", http.MethodGet, "/v1/events.r1", nil, 404},
		{"a path of nobody's is unknown", http.MethodPost, "/v1/nothing", nil, 404},
		{"a trailing slash is unknown", http.MethodPost, "/v1/ping/", nil, 404},
		{"a double slash is unknown", http.MethodPost, "//v1/ping", nil, 404},
		{"the wrong verb is not allowed", http.MethodGet, "/v1/ping", nil, 405},
		{"a runtime that fails is unavailable", http.MethodPost, "/v1/tasks/list.r2", down, 503},
		{"a runtime that panics is unavailable", http.MethodPost, "/v1/tasks/cancel", nil, 503}, // scripted has no CancelTask.
		{"a change that fails is unavailable", http.MethodPost, "/v1/desired_lrp/remove", down, 503},
	} {
		t.Run(c.promise, func(t *testing.T) {
			response := do(t, &scripted{err: c.err}, c.method, c.path, []byte("\x0a\x01g"))
			if response.Code != c.want {
				t.Errorf("status %d, want %d", response.Code, c.want)
			}
			if body := response.Body.Bytes(); c.want == 503 && len(body) != 0 {
				t.Errorf("a 503 with body %q, want none", body)
			}
		})
	}
}

// Cloud Controller calls methods on these messages without asking whether they are there.
func TestWire_emptyMessagesAreSent(t *testing.T) {
	fields := func(t *testing.T, element []byte) map[byte]bool {
		t.Helper()
		seen := map[byte]bool{}
		for len(element) > 0 { // Only lengths below 128 occur in these rows.
			seen[element[0]>>3] = true
			if element[0]&7 == 2 {
				element = element[2+int(element[1]):]
				continue
			}
			element = element[2:]
		}
		return seen
	}
	runtime := &scripted{
		actuals: []*models.ActualLRP{{State: models.ActualLRPStateUnclaimed}},
		infos:   []*models.DesiredLRPSchedulingInfo{{}},
	}
	for path, want := range map[string][]byte{
		"/v1/actual_lrps/list":                  {1, 2, 3, 9},
		"/v1/desired_lrp_scheduling_infos/list": {1, 4, 5, 6},
	} {
		body := post(t, runtime, path, nil).Body.Bytes()
		if len(body) < 2 || body[0] != 0x12 {
			t.Fatalf("%s: body %q is no list in field 2", path, body)
		}
		seen := fields(t, body[2:])
		for _, number := range want {
			if !seen[number] {
				t.Errorf("%s: field %d was left out of %q", path, number, body)
			}
		}
	}
}

func TestWire_secondViewFoldsLayers(t *testing.T) {
	runtime := &scripted{lrp: &models.DesiredLRP{
		ProcessGuid: "g",
		ImageLayers: []*models.ImageLayer{{
			Url: "http://files/l.tgz", DestinationPath: "/tmp/lifecycle", LayerType: models.LayerTypeShared, MediaType: models.MediaTypeTgz,
		}},
		MetricTags: map[string]*models.MetricTagValue{"source_id": {Static: "app"}},
	}}
	var got models.DesiredLRPResponse
	if err := got.Unmarshal(post(t, runtime, "/v1/desired_lrps/get_by_process_guid.r2", []byte("\x0a\x01g")).Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if len(got.DesiredLrp.ImageLayers) != 0 {
		t.Errorf("layers %v are left", got.DesiredLrp.ImageLayers)
	}
	want := []*models.CachedDependency{{From: "http://files/l.tgz", To: "/tmp/lifecycle", CacheKey: "http://files/l.tgz"}}
	if diff := cmp.Diff(want, got.DesiredLrp.CachedDependencies); diff != "" {
		t.Errorf("cached dependencies (-want +got):\n%s", diff)
	}
	if got.DesiredLrp.MetricsGuid != "app" {
		t.Errorf("metrics guid %q, want that of the tags", got.DesiredLrp.MetricsGuid)
	}
}

// TestWire_routesAreAlwaysThere: Cloud Controller reads existing_lrp.routes.routes[…] before each update.
func TestWire_routesAreAlwaysThere(t *testing.T) {
	runtime := &scripted{lrp: &models.DesiredLRP{ProcessGuid: "g"}}
	var got models.DesiredLRPResponse
	if err := got.Unmarshal(post(t, runtime, "/v1/desired_lrps/get_by_process_guid.r2", []byte("\x0a\x01g")).Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if got.DesiredLrp.Routes == nil {
		t.Error("an LRP without routes has no routes message")
	}
}

func TestActualLRPs_passesItsFilterOn(t *testing.T) {
	runtime := &scripted{}
	q := &models.ActualLRPsRequest{Domain: "d", CellId: "c", ProcessGuid: "p"}
	q.SetIndex(0)
	post(t, runtime, "/v1/actual_lrps/list", encode(t, q))
	var zero int32
	want := bridge.ActualFilter{Domain: "d", CellID: "c", ProcessGUIDs: []string{"p"}, Index: &zero}
	if diff := cmp.Diff(want, runtime.filter); diff != "" {
		t.Errorf("filter (-want +got):\n%s", diff)
	}
	post(t, runtime, "/v1/actual_lrps/list", nil)
	if diff := cmp.Diff(bridge.ActualFilter{}, runtime.filter); diff != "" {
		t.Errorf("empty filter (-want +got):\n%s", diff)
	}
}

func TestChange_isFinishedWithoutItsClient(t *testing.T) {
	runtime := &scripted{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/desired_lrp/remove", strings.NewReader("\x0a\x01g"))
	Handler(runtime, slog.New(slog.DiscardHandler)).ServeHTTP(httptest.NewRecorder(), request)
	if runtime.canceled {
		t.Error("the change was given up when its client left")
	}
}

func TestLog_tellsWhatButNotTheBody(t *testing.T) {
	var lines bytes.Buffer
	const secret = "canary-in-a-body"
	lrp := &models.DesireLRPRequest{DesiredLrp: &models.DesiredLRP{
		ProcessGuid: "the-guid", EnvironmentVariables: []*models.EnvironmentVariable{{Name: "PASSWORD", Value: secret}},
	}}
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/desired_lrp/desire.r2", bytes.NewReader(encode(t, lrp)))
	request.Header.Set("X-Vcap-Request-Id", "trace"+strings.Repeat("x", 2*maxLogged))
	Handler(&scripted{}, slog.New(slog.NewTextHandler(&lines, nil))).ServeHTTP(httptest.NewRecorder(), request)
	for _, want := range []string{"route=DesireDesiredLRP", "guid=the-guid", "request_id=trace", "took=", "outcome=InvalidRequest"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("%q is not in %q", want, lines.String())
		}
	}
	if strings.Contains(lines.String(), secret) {
		t.Error("a body was logged")
	}
	if strings.Contains(lines.String(), strings.Repeat("x", maxLogged)) {
		t.Error("a caller wrote a long line into our log")
	}
	lines.Reset()
	request = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/tasks/cancel",
		bytes.NewReader(encode(t, &models.TaskGuidRequest{TaskGuid: strings.Repeat("g", 2*maxLogged)})))
	Handler(bridgetest.NewMemory(time.Now), slog.New(slog.NewTextHandler(&lines, nil))).ServeHTTP(httptest.NewRecorder(), request)
	if strings.Contains(lines.String(), strings.Repeat("g", maxLogged+1)) {
		t.Error("a caller wrote a long guid into our log")
	}
}
