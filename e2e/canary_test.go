//go:build e2e

package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	nomad "github.com/hashicorp/nomad/api"

	"drover/bridge"
	"drover/bridge/translate"
	"drover/driver"
	"drover/driver/drivertest"
)

// canaries are secrets that a request may hold, by where they are put.
var canaries = map[string]string{
	"environment":          "canary-1e8f0c27-environment",
	"environment of a run": "canary-6b1d9a53-action",
	"argument":             "canary-52a7c0e1-argument",
	"image user":           "canary-0d4e6f88-user",
	"image password":       "canary-93b2f1ac-password",
	"query of a download":  "canary-c7d05e19-download",
	"user of a download":   "canary-48fa2b76-userinfo",
	"query of an upload":   "canary-ab90d3f4-upload",
	"callback":             "canary-17c6e2d5-callback",
	"route service":        "canary-e05b8a91-route",
	"ssh key":              "canary-7f3c49d2-ssh",
}

// TestCanary puts secrets wherever a request can hold one, lets the work succeed and fail, and looks for them in all
// that operators, and whoever may read jobs, can see.
func TestCanary(t *testing.T) {
	n := startBridgeNode(t)
	stream := n.recordEvents(t)
	assets := serveAssets(t)
	registry := drivertest.Serve(t)
	image := drivertest.Push(t, registry, "team/probe:1", drivertest.RootFSImage(t, driver.ImageConfig{User: "vcap"}))

	lrp := canaryLRP(t, assets, image)
	n.desire(t, lrp)
	actual := n.instance(t, "canary", "does not run", isRunning)
	body, err := fetch(t, fmt.Sprintf("http://%s:%d/env", actual.Address, actual.Ports[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"environment", "environment of a run"} {
		if !strings.Contains(body, canaries[where]) {
			t.Errorf("the canary of the %s did not get into the container, so that this test proves nothing", where)
		}
	}
	for _, guid := range []string{"works", "broken-download", "broken-upload", "broken-image"} {
		n.desireTask(t, guid, canaryTask(guid, assets))
	}
	n.desire(t, brokenLRP(assets))
	n.instance(t, "canary-broken", "does not crash", func(a *models.ActualLRP) bool { return a.CrashReason != "" })
	texts := n.endedTexts(t, "works", "broken-download", "broken-upload", "broken-image")
	if assets.seen("upload") == 0 || assets.seen("droplet") == 0 {
		t.Error("nothing was downloaded or uploaded, so that this test proves nothing")
	}
	texts["instances"] = asText(t, n.actuals(t))
	n.collect(t, texts)
	for _, guid := range []string{"canary", "canary-broken"} {
		if err := n.runtime.RemoveLRP(t.Context(), guid); err != nil {
			t.Error(err)
		}
	}
	eventually(t, 30*time.Second, "the LRPs do not stop", func() (bool, string) { return len(n.actuals(t)) == 0, asText(t, n.actuals(t)) })
	n.collectLogs(t, texts)
	texts["event stream"] = stream()
	texts["log of the bridge"] = n.log.String() + strings.Repeat(" ", 100) // it may have nothing to say
	judgeCanaries(t, texts)
}

// judgeCanaries looks for every canary, plain and in the ways in which text is quoted, in every text.
func judgeCanaries(t *testing.T, texts map[string]string) {
	t.Helper()
	for what, text := range texts {
		if len(text) < 100 {
			t.Errorf("%s has only %d bytes: %q", what, len(text), text)
		}
		for where, canary := range canaries {
			for _, form := range []string{canary, url.QueryEscape(canary), base64.StdEncoding.EncodeToString([]byte(canary)), hex.EncodeToString([]byte(canary))} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("the canary of the %s is in the %s: …%s…", where, what, text[max(0, at-200):min(len(text), at+100)])
					break
				}
			}
		}
	}
}

func canaryLRP(t *testing.T, assets *assetServer, image string) *models.DesiredLRP {
	t.Helper()
	lrp := webLRP(t, "canary")
	lrp.RootFs = dockerURL(image)
	lrp.ImageUsername, lrp.ImagePassword = canaries["image user"], canaries["image password"]
	lrp.EnvironmentVariables = []*models.EnvironmentVariable{{Name: "CANARY", Value: canaries["environment"]}}
	run := lrp.Action.CodependentAction.Actions[0].RunAction
	run.Env = []*models.EnvironmentVariable{{Name: "SECRET", Value: canaries["environment of a run"]}}
	lrp.Action.CodependentAction.Actions = append(lrp.Action.CodependentAction.Actions, models.WrapAction(&models.RunAction{
		Path: "/bin/probe", Args: []string{"then", "--", "stat", "/tmp", "--", "sleep", "600", "--", "echo", canaries["argument"]}, User: "vcap", LogSource: "CELL",
	}))
	lrp.Setup = models.WrapAction(models.Serial(assets.download("droplet", true)))
	lrp.CachedDependencies = []*models.CachedDependency{{From: assets.url("dependency"), To: "/tmp/dependency", CacheKey: "dependency"}}
	route := json.RawMessage(fmt.Sprintf(`[{"hostnames":["canary.example.com"],"port":%d,"route_service_url":"https://user:%s@rs.example.com/"}]`,
		lrp.Ports[0], canaries["route service"]))
	ssh := json.RawMessage(fmt.Sprintf(`{"container_port":2222,"private_key":%q}`, canaries["ssh key"]))
	lrp.Routes = &models.Routes{"cf-router": &route, "diego-ssh": &ssh}
	return lrp
}

// brokenLRP has a cached dependency that is not there.
func brokenLRP(assets *assetServer) *models.DesiredLRP {
	lrp := probeLRP("canary-broken", "sleep", "600")
	lrp.EnvironmentVariables = []*models.EnvironmentVariable{{Name: "CANARY", Value: canaries["environment"]}}
	lrp.CachedDependencies = []*models.CachedDependency{{Name: "missing", From: assets.url("missing"), To: "/tmp/missing"}}
	return lrp
}

func canaryTask(guid string, assets *assetServer) *models.TaskDefinition {
	task := probeTask()
	task.CompletionCallbackUrl = "https://cc.example.com/?token=" + canaries["callback"]
	task.EnvironmentVariables = []*models.EnvironmentVariable{{Name: "CANARY", Value: canaries["environment"]}}
	task.ResultFile = "/tmp/result"
	download, upload := assets.download("droplet", true), assets.upload("upload")
	switch guid {
	case "broken-download":
		download = assets.download("missing", false)
	case "broken-upload":
		upload = assets.upload("refused")
	case "broken-image":
		task.RootFs = "docker://127.0.0.1:1/team/missing#1"
		task.ImageUsername, task.ImagePassword = canaries["image user"], canaries["image password"]
	}
	task.Action = models.WrapAction(models.Timeout(models.Serial(
		download,
		&models.RunAction{Path: "/bin/probe", Args: []string{"write", "/tmp/result", strings.Repeat("result ", 20)}, User: "vcap", Env: []*models.EnvironmentVariable{{Name: "SECRET", Value: canaries["environment of a run"]}}},
		models.EmitProgressFor(upload, "Uploading", "Uploaded", "Upload failed"),
	), time.Minute))
	return task
}

// assetServer serves an archive and takes uploads.
type assetServer struct {
	base    string
	archive []byte

	mu   sync.Mutex
	hits map[string]int
}

func serveAssets(t *testing.T) *assetServer {
	t.Helper()
	var archive bytes.Buffer
	zip := gzip.NewWriter(&archive)
	if _, err := zip.Write(drivertest.Tar(t, drivertest.File("hello", 0o644, "hello"))); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	assets := &assetServer{archive: archive.Bytes(), hits: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(assets.serve))
	t.Cleanup(server.Close)
	assets.base = strings.TrimPrefix(server.URL, "http://")
	return assets
}

func (s *assetServer) serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	s.mu.Lock()
	s.hits[name]++
	s.mu.Unlock()
	switch {
	case name == "missing", name == "refused":
		http.Error(w, "no: "+r.URL.String(), http.StatusForbidden)
	case r.Method == http.MethodGet:
		_, _ = w.Write(s.archive)
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	}
}

func (s *assetServer) seen(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[name]
}

// url holds secrets in both places where a URL can.
func (s *assetServer) url(name string) string {
	return fmt.Sprintf("http://user:%s@%s/%s?sig=%s", canaries["user of a download"], s.base, name, canaries["query of a download"])
}

func (s *assetServer) download(name string, checked bool) *models.DownloadAction {
	action := &models.DownloadAction{Artifact: name, From: s.url(name), To: "/tmp/" + name, User: "vcap", LogSource: "STG"}
	if checked {
		sum := sha256.Sum256(s.archive)
		action.ChecksumAlgorithm, action.ChecksumValue = "sha256", hex.EncodeToString(sum[:])
	}
	return action
}

func (s *assetServer) upload(name string) *models.UploadAction {
	return &models.UploadAction{
		Artifact: name, From: "/tmp/result", To: fmt.Sprintf("http://%s/%s?to=%s", s.base, name, canaries["query of an upload"]), User: "vcap", LogSource: "STG",
	}
}

// endedTexts waits for Tasks and returns what the bridge says of their ends, without their definitions.
func (n *bridgeNode) endedTexts(t *testing.T, guids ...string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, guid := range guids {
		var task *models.Task
		eventually(t, 60*time.Second, "task "+guid+" does not end", func() (bool, string) {
			var err error
			if task, err = n.runtime.Task(t.Context(), guid); err != nil {
				t.Fatal(err)
			}
			return task.State == models.Task_Completed, task.State.String()
		})
		if task.Failed != strings.HasPrefix(guid, "broken") {
			t.Errorf("task %s: failed %t, %q", guid, task.Failed, task.FailureReason)
		}
		task.TaskDefinition = nil
		texts["task "+guid] = asText(t, task)
	}
	return texts
}

func (n *bridgeNode) actuals(t *testing.T) []*models.ActualLRP {
	t.Helper()
	actuals, err := n.runtime.ActualLRPs(t.Context(), bridge.ActualFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return actuals
}

func asText(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// collect reads what Nomad and Consul show of the jobs.
func (n *bridgeNode) collect(t *testing.T, texts map[string]string) {
	t.Helper()
	client := n.cluster.Nomad
	read := func(what string, value any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		texts[what] += asText(t, value)
	}
	jobs, _, err := client.Jobs().List(nil)
	read("list of jobs", jobs, err)
	for _, stub := range jobs {
		job, _, err := client.Jobs().Info(stub.ID, nil)
		read("jobs", job, err)
		versions, _, _, err := client.Jobs().Versions(stub.ID, false, nil)
		read("versions of jobs", versions, err)
		plan, _, err := client.Jobs().Plan(job, true, nil)
		read("plans of jobs", plan, err)
		submission, _, err := client.Jobs().Submission(stub.ID, 0, nil)
		if err == nil {
			texts["jobs"] += asText(t, submission)
		}
	}
	evaluations, _, err := client.Evaluations().List(nil)
	read("evaluations", evaluations, err)
	allocs, _, err := client.Allocations().List(nil)
	read("list of allocations", allocs, err)
	for _, stub := range allocs {
		alloc, _, err := client.Allocations().Info(stub.ID, nil)
		read("allocations", alloc, err)
	}
	variables, _, err := client.Variables().List(nil)
	read("list of variables", variables, err)
	services, _, err := n.cluster.Consul.Catalog().Service("cf-canary", "", nil)
	read("services", services, err)
}

// collectLogs reads the agents' logs, in which the plugin logs too, and what lies about in the allocations.
func (n *bridgeNode) collectLogs(t *testing.T, texts map[string]string) {
	t.Helper()
	for what, path := range map[string]string{"log of nomad and the plugin": n.cluster.NomadLog(), "log of consul": filepath.Join(n.dir, "agent", "consul.log")} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[what] = string(raw)
	}
	if !strings.Contains(texts["log of nomad and the plugin"], "[DEBUG] client.driver_mgr.nomad-driver-drover") {
		t.Error("the plugin's log is not at level DEBUG")
	}
}

// recordEvents reads Nomad's event stream until the returned function is called.
func (n *bridgeNode) recordEvents(t *testing.T) func() string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	topics := map[nomad.Topic][]string{nomad.TopicAll: {"*"}}
	stream, err := n.cluster.Nomad.EventStream().Stream(ctx, topics, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		for events := range stream {
			if events.Err != nil {
				return
			}
			raw, err := json.Marshal(events.Events)
			if err != nil {
				return
			}
			text.Write(raw)
		}
	}()
	return func() string {
		cancel()
		<-done
		got := text.String()
		if !strings.Contains(got, translate.LRPJobID("canary")) {
			t.Error("the event stream has nothing about the LRP")
		}
		return got
	}
}
