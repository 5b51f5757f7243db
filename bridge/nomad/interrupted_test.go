package nomad

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"drover/bridge"
	"drover/bridge/bridgetest"
	"drover/bridge/translate"

	"github.com/google/go-cmp/cmp"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func converge(t *testing.T, runtime *Runtime) {
	t.Helper()
	_, err := runtime.convergeOnce(t.Context())
	must(t, err)
}

// TestDesireLRP_isNotListedBeforeItIsReady: the index must not run ahead of what Nomad has, or two bridges would say
// different things of an LRP that one of them could not finish.
func TestDesireLRP_isNotListedBeforeItIsReady(t *testing.T) {
	runtime, fake := newFake(t, nil)
	writes := 0
	fake.fail = func(r *http.Request) int {
		if r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/v1/var/"+lrpsPath) {
			if writes++; writes == 2 {
				return http.StatusInternalServerError
			}
		}
		return 0
	}
	if err := runtime.DesireLRP(t.Context(), bridgetest.LRP("guid")); err == nil {
		t.Fatal("no error, although the record could not be marked as ready")
	}
	infos, err := runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
	must(t, err)
	if len(infos) != 0 {
		t.Errorf("%s is listed by the bridge that could not finish it", infos[0].ProcessGuid)
	}
	must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("guid")))
	infos, err = runtime.SchedulingInfos(t.Context(), bridge.LRPFilter{})
	must(t, err)
	if len(infos) != 1 {
		t.Errorf("asked for again, %d are listed, want 1", len(infos))
	}
}

// TestConverge_finishesRemovals: a bridge that dies between the run info and the record of what it removes leaves a
// record that nothing can be made of.
func TestConverge_finishesRemovals(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, runtime *Runtime)
	}{
		{"of an LRP", func(t *testing.T, runtime *Runtime) {
			t.Helper()
			must(t, runtime.DesireLRP(t.Context(), bridgetest.LRP("guid")))
		}},
		{"of a Task with a callback", func(t *testing.T, runtime *Runtime) {
			t.Helper()
			task := bridgetest.Task()
			task.CompletionCallbackUrl = "https://cc.example.com/done"
			must(t, runtime.DesireTask(t.Context(), "guid", "cf-tasks", task))
			must(t, runtime.CancelTask(t.Context(), "guid"))
			must(t, runtime.ResolvingTask(t.Context(), "guid"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Now()
			runtime, fake := newFake(t, func() time.Time { return now })
			test.make(t, runtime)
			fake.fail = func(r *http.Request) int {
				if r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/v1/var/"+root) {
					return http.StatusInternalServerError
				}
				return 0
			}
			if runtime.RemoveLRP(t.Context(), "guid") == nil || runtime.DeleteTask(t.Context(), "guid") == nil {
				t.Fatal("a removal that was interrupted is no error")
			}
			fake.fail = nil
			converge(t, runtime)
			if len(fake.paths()) != 1 {
				t.Fatalf("left are %v, want the record until it is settled", fake.paths())
			}
			now = now.Add(settled + time.Second)
			converge(t, runtime)
			if diff := cmp.Diff([]string(nil), fake.paths()); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTasks_oneDamagedDefinitionHidesNoOther: who waits for callbacks lists all Tasks or none.
func TestTasks_oneDamagedDefinitionHidesNoOther(t *testing.T) {
	runtime, fake := newFake(t, nil)
	for _, guid := range []string{"a", "b", "c"} {
		must(t, runtime.DesireTask(t.Context(), guid, "cf-tasks", bridgetest.Task()))
	}
	fake.variables["nomad/jobs/"+translate.TaskJobID("b")].Items[translate.RunInfoItem] = "damaged"
	tasks, err := runtime.Tasks(t.Context(), bridge.TaskFilter{})
	must(t, err)
	var guids []string
	for _, task := range tasks {
		guids = append(guids, task.TaskGuid)
		if task.VersionDownTo(2).TaskDefinition == nil {
			t.Errorf("task %s has no definition", task.TaskGuid)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, guids); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	if tasks[0].RootFs == "" || tasks[2].RootFs == "" {
		t.Error("the others are not whole")
	}
	fake.fail = func(*http.Request) int { return http.StatusInternalServerError }
	if _, err := runtime.Tasks(t.Context(), bridge.TaskFilter{}); err == nil {
		t.Error("a list that could not be read is no error")
	}
}
