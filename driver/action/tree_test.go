package action

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

// treeStory is an action and what becomes of it.
type treeStory struct {
	name   string
	action models.ActionInterface
	code   int
	reason string
	took   time.Duration
	ended  []string
	log    []string
}

func treeStories() []treeStory {
	parallel := func(a ...models.ActionInterface) models.ActionInterface { return models.Parallel(a...) }
	codependent := func(a ...models.ActionInterface) models.ActionInterface { return models.Codependent(a...) }
	return []treeStory{
		{name: "a run that succeeds", action: run("exit 0")},
		{name: "a run that fails", action: run("exit 3"), code: 3, reason: "APP: Exited with status 3"},
		{name: "a run whose memory ran out", action: run("oom 137"), code: 137, reason: "APP: Exited with status 137 (out of memory)"},
		{name: "a builder's failure has nothing behind it", action: run("oom 222"), code: 222, reason: "APP: Exited with status 222"},
		{name: "a run that cannot begin", action: run("broken"), code: 1, reason: "APP: cannot run broken: no such file"},
		{
			name: "a run without a log source has the task's", action: &models.RunAction{Path: "exit", Args: []string{"9"}, User: "vcap"},
			code: 9, reason: "TASK: Exited with status 9",
		},
		{name: "serial stops at the first failure", action: models.Serial(run("exit 0"), run("exit 4"), run("exit 5")), code: 4, reason: "APP: Exited with status 4"},
		{
			name: "parallel waits for all", action: parallel(run("exit 4"), run("after 3s 0")), code: 4,
			reason: "APP: Exited with status 4", took: 3 * time.Second,
		},
		{
			name: "parallel tells all failures", action: parallel(run("after 2s 5"), run("after 1s 4")), code: 4,
			reason: "APP: Exited with status 4; APP: Exited with status 5", took: 2 * time.Second,
		},
		{
			name: "codependent ends the others", action: codependent(run("after 1s 3"), run("forever")), code: 3,
			reason: "APP: Exited with status 3", took: time.Second, ended: []string{"forever"},
		},
		{
			name: "codependent fails also when one succeeds", action: codependent(run("after 1s 0"), run("forever")), code: 0,
			reason: "Codependent step exited", took: time.Second, ended: []string{"forever"},
		},
		{
			name: "timeout ends what takes too long", action: models.Timeout(run("forever"), 15*time.Minute), code: 1,
			reason: "exceeded 15m0s timeout", took: 15 * time.Minute, ended: []string{"forever"},
		},
		{name: "timeout lets pass what is quick", action: models.Timeout(run("after 1s 0"), 2*time.Second), took: time.Second},
		{name: "timeout tells a failure in time", action: models.Timeout(run("exit 6"), time.Second), code: 6, reason: "APP: Exited with status 6"},
		{name: "try may fail", action: models.Serial(models.Try(run("exit 1")), run("exit 0"))},
		{
			name: "a timeout in a try in a serial goes on", took: 2 * time.Second, ended: []string{"forever"},
			action: models.Serial(models.Try(models.Timeout(run("forever"), time.Second)), run("after 1s 0")),
		},
		{
			name: "progress of success is told", action: models.EmitProgressFor(run("exit 0"), "Staging...", "Staging complete", "Staging failed"),
			log: []string{"Staging...", "Staging complete"},
		},
		{
			name: "progress of failure is told", action: models.EmitProgressFor(run("exit 222"), "Staging...", "Staging complete", "Staging failed"),
			code: 222, reason: "APP: Exited with status 222", log: []string{"Staging...", "Staging failed: APP: Exited with status 222"},
		},
		{
			name: "files of volumes are refused", code: 1, reason: "APP: volume_mounted_files are not supported",
			action: &models.RunAction{Path: "exit", User: "vcap", LogSource: "APP", VolumeMountedFiles: []*models.File{{Path: "a"}}},
		},
	}
}

func TestTree(t *testing.T) {
	for _, test := range treeStories() {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWorld(t)
				begin := time.Now()
				got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(test.action), LogSource: "TASK"}, nil)
				if want := (Outcome{Code: test.code, Reason: test.reason}); got != want {
					t.Errorf("outcome is %+v, want %+v", got, want)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if !slices.Equal(w.ended, test.ended) {
					t.Errorf("told to end: %v, want %v", w.ended, test.ended)
				}
				if !slices.Equal(w.log, test.log) {
					t.Errorf("log is %q, want %q", w.log, test.log)
				}
			})
		})
	}
}

func TestTree_endsWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		w := newFakeWorld(t)
		action := models.Serial(models.Parallel(run("forever 1"), models.Try(run("forever 2"))), run("exit 0"))
		got := runTask(ctx, t, w, models.TaskDefinition{Action: models.WrapAction(action)}, nil)
		if want := (Outcome{Code: 143}); got != want {
			t.Errorf("outcome is %+v, want %+v", got, want)
		}
		if len(w.ended) != 2 || len(w.ran) != 2 {
			t.Errorf("ended %v of %v", w.ended, w.ran)
		}
	})
}

func TestTree_givesProcessesTheirEnvironment(t *testing.T) {
	w := newFakeWorld(t)
	limits := &models.ResourceLimits{}
	limits.SetNofile(77)
	action := &models.RunAction{
		Path: "exit", Args: []string{"0"}, User: "vcap", Dir: "/work", ResourceLimits: limits, SuppressLogOutput: true,
		Env: []*models.EnvironmentVariable{{Name: "B", Value: "run"}, {Name: "C", Value: "run"}},
	}
	got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(action)}, func(o *Options) {
		o.Work.Env, o.Work.InstanceEnv = []string{"A=image", "B=image"}, []string{"C=instance"}
	})
	want := Command{Silent: true, Process: driver.Process{
		Args: []string{"exit", "0"}, Dir: "/work", User: "vcap", NoFile: 77,
		Env: []string{"A=image", "B=image", "B=run", "C=run", "C=instance"},
	}}
	if got.Reason != "" || !cmp.Equal(w.ran, []Command{want}) {
		t.Errorf("outcome %+v, commands (-want +got):\n%s", got, cmp.Diff([]Command{want}, w.ran))
	}
}

func TestTask_result(t *testing.T) {
	for _, test := range []struct {
		name, content string
		want          Outcome
	}{
		{"is handed back", `{"a":1}`, Outcome{Result: `{"a":1}`}},
		{"may be as large as the limit", strings.Repeat("x", maxResult), Outcome{Result: strings.Repeat("x", maxResult)}},
		{"may not be larger", strings.Repeat("x", maxResult+1), Outcome{Code: 1, Reason: "failed to fetch result"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newFakeWorld(t)
			if err := os.WriteFile(filepath.Join(w.dir, "result"), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(run("exit 0")), ResultFile: "/result"}, nil)
			if got != test.want {
				t.Errorf("outcome differs: code %d, reason %q, %d bytes", got.Code, got.Reason, len(got.Result))
			}
		})
	}
}

func TestTask_badDefinitions(t *testing.T) {
	for name, action := range map[string]*models.Action{
		"no action":            nil,
		"an empty action":      {},
		"an empty inner one":   {TimeoutAction: &models.TimeoutAction{TimeoutMs: 1000}},
		"a timeout of no time": models.WrapAction(&models.TimeoutAction{Action: models.WrapAction(run("exit 0"))}),
	} {
		got := runTask(t.Context(), t, newFakeWorld(t), models.TaskDefinition{Action: action}, nil)
		if got.Code == 0 || got.Reason == "" {
			t.Errorf("%s: outcome is %+v", name, got)
		}
	}
	o := options(t, newFakeWorld(t))
	o.Work.Info = driver.RunInfo{Kind: driver.KindLRP, Definition: []byte{0xff, 0xff}}
	if got := Run(t.Context(), o, func() {}); got.Code == 0 || !strings.Contains(got.Reason, driver.ErrBadRunInfo.Error()) {
		t.Errorf("outcome of garbage is %+v", got)
	}
}

func TestTruncate(t *testing.T) {
	long := truncate(strings.Repeat("é", 2000))
	if len(long) > maxReason || !strings.HasSuffix(long, "é(truncated)") {
		t.Errorf("%d bytes: %s", len(long), long)
	}
	if got := truncate("short"); got != "short" {
		t.Errorf("got %s", got)
	}
}
