package bridgetest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/bridge"
)

// patience is how long a Runtime may take for what it does behind a caller's back.
const patience = 20 * time.Second

// Contract tests a Runtime against the promises of package bridge that need no running container. newRuntime is called
// once for each test and returns an empty Runtime.
func Contract(t *testing.T, newRuntime func(t *testing.T) bridge.Runtime) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, runtime bridge.Runtime)
	}{
		{"a desired LRP is listed with unclaimed instances at once", testDesireLRP},
		{"a desired LRP is returned as it was desired", testDesiredLRPRoundTrip},
		{"a process guid is desired once", testDesireLRPTwice},
		{"an unknown LRP is not found", testUnknownLRP},
		{"lists are narrowed by domain and guid", testLRPFilters},
		{"an update changes only what it names", testUpdateLRP},
		{"an update that changes nothing moves the modification tag", testEmptyUpdate},
		{"scaling makes and drops instances at the end", testScale},
		{"a removed LRP can be desired again", testRemoveLRP},
		{"retiring an instance leaves the LRP whole", testRetire},
		{"a desired Task is pending with its definition", testDesireTask},
		{"a Task's guid is unique in all domains", testDesireTaskTwice},
		{"an unknown Task is not found", testUnknownTask},
		{"a cancelled Task is completed, resolved and deleted in that order", testCancelTask},
		{"a hint follows each completion", testCompletions},
		{"a domain is fresh until its time is over", testDomains},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, newRuntime(t)) })
	}
}

func testDesireLRP(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	before := time.Now().Add(-time.Second).UnixNano()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	actuals := mustGet(runtime.ActualLRPs(ctx, bridge.ActualFilter{ProcessGUIDs: []string{"lrp-1"}}))(t)
	if len(actuals) != 2 {
		t.Fatalf("got %d instances, want 2: %v", len(actuals), actuals)
	}
	for i, actual := range actuals {
		want := models.NewActualLRPKey("lrp-1", int32(i), "cf-apps")
		if diff := cmp.Diff(want, actual.ActualLRPKey); diff != "" {
			t.Errorf("key of instance %d (-want +got):\n%s", i, diff)
		}
		if actual.State != models.ActualLRPStateUnclaimed || !actual.ActualLRPInstanceKey.Empty() {
			t.Errorf("instance %d is %s with %v, want UNCLAIMED without an instance key", i, actual.State, actual.ActualLRPInstanceKey)
		}
		if !actual.RoutableExists() || actual.GetRoutable() {
			t.Errorf("instance %d: routable is not set to false", i)
		}
		if actual.Since < before {
			t.Errorf("instance %d: since %d is before the test began at %d", i, actual.Since, before)
		}
		if actual.ModificationTag.Epoch == "" {
			t.Errorf("instance %d has no modification tag", i)
		}
	}
}

func testDesiredLRPRoundTrip(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	want := LRP("lrp-1")
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	got := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t)
	tag := got.ModificationTag
	if tag == nil || tag.Epoch == "" || tag.Index != 0 {
		t.Errorf("modification tag is %v, want a new epoch and index 0", tag)
	}
	got.ModificationTag = nil
	if diff := cmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
		t.Errorf("desired LRP (-want +got):\n%s", diff)
	}
	for key, value := range *want.Routes {
		if raw := (*got.Routes)[key]; raw == nil || string(*raw) != string(*value) {
			t.Errorf("route %s came back changed, want the very bytes %s", key, *value)
		}
	}
	lrps := mustGet(runtime.DesiredLRPs(ctx, bridge.LRPFilter{}))(t)
	if len(lrps) != 1 || lrps[0].Action == nil {
		t.Errorf("got %v, want one whole LRP", lrps)
	}
	info := mustGet(runtime.SchedulingInfos(ctx, bridge.LRPFilter{}))(t)
	want.ModificationTag = tag
	wantInfo := want.DesiredLRPSchedulingInfo()
	if len(info) != 1 {
		t.Fatalf("got %d scheduling infos, want 1", len(info))
	}
	if diff := cmp.Diff(asJSON(t, &wantInfo), asJSON(t, info[0])); diff != "" {
		t.Errorf("scheduling info (-want +got):\n%s", diff)
	}
}

func testDesireLRPTwice(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	second := LRP("lrp-1")
	second.Instances = 5
	mustFail(t, runtime.DesireLRP(ctx, second), models.ErrResourceExists)
	if got := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t); got.Instances != 2 {
		t.Errorf("the refused request left its mark: %d instances, want 2", got.Instances)
	}
}

func testUnknownLRP(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	_, err := runtime.DesiredLRP(ctx, "none")
	mustFail(t, err, models.ErrResourceNotFound)
	mustFail(t, runtime.UpdateLRP(ctx, "none", &models.DesiredLRPUpdate{}), models.ErrResourceNotFound)
	mustFail(t, runtime.RemoveLRP(ctx, "none"), models.ErrResourceNotFound)
	mustFail(t, runtime.RetireActualLRP(ctx, &models.ActualLRPKey{ProcessGuid: "none", Domain: "cf-apps"}), models.ErrResourceNotFound)
	if infos := mustGet(runtime.SchedulingInfos(ctx, bridge.LRPFilter{ProcessGUIDs: []string{"none"}}))(t); len(infos) != 0 {
		t.Errorf("got %v, want nothing", infos)
	}
	if actuals := mustGet(runtime.ActualLRPs(ctx, bridge.ActualFilter{ProcessGUIDs: []string{"none"}}))(t); len(actuals) != 0 {
		t.Errorf("got %v, want nothing", actuals)
	}
}

func testLRPFilters(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	other := LRP("lrp-2")
	other.Domain = "other"
	other.Instances = 1
	mustDo(t, runtime.DesireLRP(ctx, other))
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-3")))
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	one := int32(1)
	lists := []struct {
		name   string
		filter bridge.LRPFilter
		want   []string
	}{
		{"all in order", bridge.LRPFilter{}, []string{"lrp-1", "lrp-2", "lrp-3"}},
		{"by domain", bridge.LRPFilter{Domain: "cf-apps"}, []string{"lrp-1", "lrp-3"}},
		{"by guid", bridge.LRPFilter{ProcessGUIDs: []string{"lrp-3", "lrp-2"}}, []string{"lrp-2", "lrp-3"}},
		{"by both", bridge.LRPFilter{Domain: "other", ProcessGUIDs: []string{"lrp-3"}}, nil},
	}
	for _, list := range lists {
		var got []string
		for _, info := range mustGet(runtime.SchedulingInfos(ctx, list.filter))(t) {
			got = append(got, info.ProcessGuid)
		}
		if diff := cmp.Diff(list.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", list.name, diff)
		}
	}
	actuals := []struct {
		name   string
		filter bridge.ActualFilter
		want   int
	}{
		{"all", bridge.ActualFilter{}, 5},
		{"by domain", bridge.ActualFilter{Domain: "other"}, 1},
		{"by guid and index", bridge.ActualFilter{ProcessGUIDs: []string{"lrp-1", "lrp-2"}, Index: &one}, 1},
		{"by an unknown cell", bridge.ActualFilter{CellID: "none"}, 0},
	}
	for _, list := range actuals {
		if got := mustGet(runtime.ActualLRPs(ctx, list.filter))(t); len(got) != list.want {
			t.Errorf("instances %s: got %d, want %d", list.name, len(got), list.want)
		}
	}
}

func testUpdateLRP(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	before := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t)

	route := json.RawMessage(`[ {"hostnames":["two.example.com"],"port":8080} ]`)
	mustDo(t, runtime.UpdateLRP(ctx, "lrp-1", &models.DesiredLRPUpdate{Routes: &models.Routes{"cf-router": &route}}))
	update := &models.DesiredLRPUpdate{MetricTags: map[string]*models.MetricTagValue{"source_id": {Static: "other"}}}
	update.SetAnnotation("2.0")
	mustDo(t, runtime.UpdateLRP(ctx, "lrp-1", update))

	want := LRP("lrp-1")
	want.Routes = &models.Routes{"cf-router": &route}
	want.Annotation = "2.0"
	want.MetricTags = update.MetricTags
	want.ModificationTag = &models.ModificationTag{Epoch: before.ModificationTag.Epoch, Index: 2}
	got := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t)
	if diff := cmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
		t.Errorf("updated LRP (-want +got):\n%s", diff)
	}
	credentials := &models.DesiredLRPUpdate{}
	credentials.SetImagePassword("new")
	if err := runtime.UpdateLRP(ctx, "lrp-1", credentials); models.ConvertError(err).GetType() != models.Error_InvalidRequest {
		t.Errorf("updating image credentials gave %v, want InvalidRequest", err)
	}
}

func testEmptyUpdate(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	mustDo(t, runtime.UpdateLRP(ctx, "lrp-1", &models.DesiredLRPUpdate{}))
	if got := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t); got.ModificationTag.Index != 1 {
		t.Errorf("modification index is %d, want 1", got.ModificationTag.Index)
	}
}

func testScale(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	for _, count := range []int32{4, 1, 0, 2} {
		update := &models.DesiredLRPUpdate{}
		update.SetInstances(count)
		mustDo(t, runtime.UpdateLRP(ctx, "lrp-1", update))
		actuals := mustGet(runtime.ActualLRPs(ctx, bridge.ActualFilter{}))(t)
		if len(actuals) != int(count) {
			t.Errorf("scaled to %d: got %d instances", count, len(actuals))
		}
		for i, actual := range actuals {
			if actual.Index != int32(i) {
				t.Errorf("scaled to %d: instance %d has index %d", count, i, actual.Index)
			}
		}
	}
}

func testRemoveLRP(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	first := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t)
	mustDo(t, runtime.RemoveLRP(ctx, "lrp-1"))
	mustFail(t, runtime.RemoveLRP(ctx, "lrp-1"), models.ErrResourceNotFound)
	_, err := runtime.DesiredLRP(ctx, "lrp-1")
	mustFail(t, err, models.ErrResourceNotFound)
	eventually(t, "no instance is left", func(ctx context.Context) bool {
		actuals, err := runtime.ActualLRPs(ctx, bridge.ActualFilter{})
		return err == nil && len(actuals) == 0
	})
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	second := mustGet(runtime.DesiredLRP(ctx, "lrp-1"))(t)
	if first.ModificationTag.Epoch == second.ModificationTag.Epoch {
		t.Errorf("both lives have the epoch %s", second.ModificationTag.Epoch)
	}
}

func testRetire(t *testing.T, runtime bridge.Runtime) {
	t.Helper()
	ctx := t.Context()
	mustDo(t, runtime.DesireLRP(ctx, LRP("lrp-1")))
	mustDo(t, runtime.RetireActualLRP(ctx, &models.ActualLRPKey{ProcessGuid: "lrp-1", Index: 1, Domain: "cf-apps"}))
	mustFail(t, runtime.RetireActualLRP(ctx, &models.ActualLRPKey{ProcessGuid: "lrp-1", Index: 2, Domain: "cf-apps"}), models.ErrResourceNotFound)
	eventually(t, "both instances are there", func(ctx context.Context) bool {
		actuals, err := runtime.ActualLRPs(ctx, bridge.ActualFilter{})
		return err == nil && len(actuals) == 2
	})
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustGet[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		mustDo(t, err)
		return value
	}
}

// mustFail wants the very type and text of a Diego error, as callers compare both.
func mustFail(t *testing.T, err error, want *models.Error) {
	t.Helper()
	var got *models.Error
	if !errors.As(err, &got) || got.GetType() != want.GetType() || got.GetMessage() != want.GetMessage() {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func(ctx context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s, but not: %s", patience, what)
		case <-tick.C:
		}
	}
}
