package nomad

import (
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"drover/bridge/bridgetest"
)

func TestLRPRecord_keepsWhatChangesWithoutARestart(t *testing.T) {
	lrp := bridgetest.LRP("guid")
	lrp.Ports = []uint32{8080, 2222}
	lrp.PlacementTags = []string{"segment"}
	lrp.CheckDefinition = &models.CheckDefinition{Checks: []*models.Check{{TcpCheck: &models.TCPCheck{Port: 8080}}}}
	record := newLRPRecord(lrp, "epoch")
	record.Index = 4
	items, err := encodeRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := decodeRecord(lrpPath("guid"), items)
	if err != nil {
		t.Fatal(err)
	}
	again, is := decoded.(*lrpRecord)
	if !is {
		t.Fatalf("decoded a %T", decoded)
	}
	got := again.lrp()
	want := *lrp
	want.ModificationTag = &models.ModificationTag{Epoch: "epoch", Index: 4}
	// The rest is run info.
	want.Action, want.EnvironmentVariables, want.LogSource, want.CpuWeight = nil, nil, "", 0
	for key, value := range *lrp.Routes {
		if raw := (*got.Routes)[key]; raw == nil || string(*raw) != string(*value) {
			t.Errorf("route %s has other bytes", key)
		}
	}
	want.Routes, got.Routes = nil, nil
	if want.String() != got.String() {
		t.Errorf("record (-want +got):\n%s", cmp.Diff(want.String(), got.String()))
	}
}

func TestLRPRecord_handsOutCopies(t *testing.T) {
	record := newLRPRecord(bridgetest.LRP("guid"), "epoch")
	first := record.lrp()
	first.MetricTags["source_id"].Static = "changed"
	(*(*first.Routes)["cf-router"])[0] = 'X'
	delete(*first.Routes, "diego-ssh")
	if second := record.lrp(); second.MetricTags["source_id"].Static == "changed" || len(*second.Routes) != 2 || (*(*second.Routes)["cf-router"])[0] == 'X' {
		t.Error("a caller's changes got into the record")
	}
}

func TestEncodeRecord_refusesWhatDoesNotFit(t *testing.T) {
	lrp := bridgetest.LRP("guid")
	lrp.Annotation = strings.Repeat("a", maxRecord)
	_, err := encodeRecord(newLRPRecord(lrp, "epoch"))
	if models.ConvertError(err).GetType() != models.Error_InvalidRequest {
		t.Errorf("got %v, want InvalidRequest", err)
	}
}

func TestTaskRecord_keepsTheResultBesideTheRecord(t *testing.T) {
	result := strings.Repeat(`{"quoted": "\n"}`, 3000)
	items, err := encodeRecord(&taskRecord{GUID: "guid", State: taskCompleted, result: result})
	if err != nil {
		t.Fatal(err)
	}
	if size := len(items[recordItem]) + len(items[resultItem]); size > 64<<10 {
		t.Errorf("the items have %d bytes", size)
	}
	decoded, err := decodeRecord(taskPath("guid"), items)
	if err != nil {
		t.Fatal(err)
	}
	if again, is := decoded.(*taskRecord); !is || again.result != result {
		t.Errorf("decoded %v", decoded)
	}
}

func TestTaskRecord_givesUpAStaleClaim(t *testing.T) {
	now := time.Unix(1000, 0)
	tests := []struct {
		name   string
		record taskRecord
		want   models.Task_State
	}{
		{"a task that has not ended is not kept here", taskRecord{}, models.Task_Pending},
		{"a completed task is completed", taskRecord{State: taskCompleted}, models.Task_Completed},
		{"a fresh claim holds", taskRecord{State: taskResolving, header: header{UpdatedAt: now.Add(-20 * time.Second).UnixNano()}}, models.Task_Resolving},
		{"a stale claim does not", taskRecord{State: taskResolving, header: header{UpdatedAt: now.Add(-40 * time.Second).UnixNano()}}, models.Task_Completed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.record.state(now); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestDecodeRecord_refusesWhatIsNotOurs(t *testing.T) {
	for _, path := range []string{"drover/other/x", lrpPath("guid")} {
		if record, err := decodeRecord(path, map[string]string{"other": "item"}); err == nil {
			t.Errorf("%s: got %v, want an error", path, record)
		}
	}
}

func TestDomainPath_isAPathForEveryName(t *testing.T) {
	for _, domain := range []string{"cf-apps", "a.b/c d", "ä", strings.Repeat("x", 60)} {
		path := strings.TrimPrefix(domainPath(domain), domainsPath)
		if path == "" || strings.ContainsFunc(path, func(r rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", r)
		}) {
			t.Errorf("the path of %q is %q", domain, path)
		}
	}
}

func paths(entries []entry) []string {
	var result []string
	for _, e := range entries {
		result = append(result, e.path)
	}
	return result
}

func TestRecords_followTheLists(t *testing.T) {
	index := newRecords()
	meta := func(path string, modified uint64) *api.VariableMetadata {
		return &api.VariableMetadata{Path: path, ModifyIndex: modified}
	}
	index.put(entry{path: "drover/lrps/known", modifyIndex: 5})
	index.put(entry{path: "drover/lrps/changed", modifyIndex: 5})
	index.put(entry{path: "drover/lrps/gone", modifyIndex: 5})
	index.put(entry{path: "drover/lrps/mine", modifyIndex: 12})
	index.put(entry{path: "drover/lrps/deleted", modifyIndex: 5})
	index.drop("drover/lrps/deleted", 12)

	// A list that is older than two writes of ours.
	stale := index.compare([]*api.VariableMetadata{
		meta("drover/lrps/known", 5), meta("drover/lrps/changed", 9), meta("drover/lrps/new", 8), meta("drover/lrps/deleted", 5),
	}, 10)
	if diff := cmp.Diff([]string{"drover/lrps/changed", "drover/lrps/new"}, stale); diff != "" {
		t.Errorf("to be read (-want +got):\n%s", diff)
	}
	want := []string{"drover/lrps/changed", "drover/lrps/known", "drover/lrps/mine"}
	if diff := cmp.Diff(want, paths(index.list(lrpsPath))); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	// A late answer to a read of what has been deleted since, and of what has been written since.
	index.put(entry{path: "drover/lrps/deleted", modifyIndex: 5})
	index.put(entry{path: "drover/lrps/mine", modifyIndex: 11})
	if diff := cmp.Diff(want, paths(index.list(lrpsPath))); diff != "" {
		t.Errorf("index after late answers (-want +got):\n%s", diff)
	}
	if mine, _ := index.get("drover/lrps/mine"); mine.modifyIndex != 12 {
		t.Errorf("a late answer has overwritten a newer record: index %d", mine.modifyIndex)
	}
	// What was deleted can come again.
	index.put(entry{path: "drover/lrps/deleted", modifyIndex: 13})
	if _, ok := index.get("drover/lrps/deleted"); !ok {
		t.Error("a record that was made again is not known")
	}
}

func TestKeyedMutex_locksEachKeyForItself(t *testing.T) {
	var locks keyedMutex
	unlock := locks.lock("a")
	locks.lock("b")()
	second := make(chan struct{})
	go func() {
		defer close(second)
		locks.lock("a")()
	}()
	select {
	case <-second:
		t.Fatal("two hold the same lock")
	case <-time.After(20 * time.Millisecond):
	}
	unlock()
	<-second
	if len(locks.locks) != 0 {
		t.Errorf("%d locks are left", len(locks.locks))
	}
}

func TestNew_refusesWrongOptions(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a Runtime without a client is accepted")
	}
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Client: client}
	config.Options.Network = "overlay"
	if _, err := New(config); err == nil || !strings.Contains(err.Error(), "overlay") {
		t.Errorf("got %v, want an error that names the network", err)
	}
}
