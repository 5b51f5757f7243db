//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	nomad "github.com/hashicorp/nomad/api"

	"drover/driver"
	"drover/driver/drivertest"
)

// TestDriver runs tasks on one agent: what they print, how they end, what can be done to them.
func TestDriver(t *testing.T) {
	n := startDriverNode(t, 512, "")
	ref := n.push(t, drivertest.RootFSImage(t, driver.ImageConfig{
		Entrypoint: []string{"/bin/probe"}, Cmd: []string{"id"}, User: "vcap", Env: []string{"FROM=image", "BOTH=image"}, StopSignal: "SIGUSR1",
	}), "team/probe:1")
	image := func(args ...string) map[string]any { return map[string]any{"image": ref, "args": args} }

	t.Run("is healthy and says what it offers", func(t *testing.T) { checkNode(t, n) })
	t.Run("runs what the image says, as the image's user", func(t *testing.T) {
		alloc := n.start(t, taskOf("default", nomad.JobTypeBatch, map[string]any{"image": ref}))
		if state := n.await(t, alloc, "dead"); state.Failed {
			t.Error(describe(state))
		}
		n.awaitLog(t, alloc, "stdout", "uid=2000")
	})
	t.Run("keeps the streams apart", func(t *testing.T) {
		alloc := n.start(t, taskOf("streams", nomad.JobTypeBatch, image("then", "--", "echo", "to", "out", "--", "err", "to", "err")))
		n.await(t, alloc, "dead")
		n.awaitLog(t, alloc, "stdout", "to out\n")
		n.awaitLog(t, alloc, "stderr", "to err\n")
	})
	t.Run("puts the jobspec's environment over the image's", func(t *testing.T) {
		alloc := n.start(t, taskOf("env", nomad.JobTypeBatch, image("env"), func(_ *nomad.Job, task *nomad.Task) {
			task.Env = map[string]string{"BOTH": "jobspec"}
		}))
		n.await(t, alloc, "dead")
		n.awaitLog(t, alloc, "stdout", "\nNOMAD_TASK_DIR=/local\n")
		got := n.logs(t, alloc, "stdout")
		if !strings.Contains(got, "BOTH=jobspec\n") || !strings.Contains(got, "FROM=image\n") || strings.Contains(got, "BOTH=image") {
			t.Errorf("environment:\n%s", got)
		}
	})
	t.Run("tells the exit status", func(t *testing.T) { checkExit(t, n, image("exit", "7"), 7, "0", "false") })
	t.Run("tells the signal", func(t *testing.T) { checkSignalled(t, n, image("trap", "600")) })
	t.Run("tells a kill for want of memory apart", func(t *testing.T) { checkExit(t, n, image("mem", "256"), 137, "9", "true") })
	t.Run("shares the allocation's directories", func(t *testing.T) { checkDirectories(t, n, image) })
	t.Run("stops by the image's signal", func(t *testing.T) { checkStop(t, n, image("trap", "0"), "", "SIGUSR1", "user defined signal 1") })
	t.Run("stops by the job's signal", func(t *testing.T) { checkStop(t, n, image("trap", "0"), "SIGHUP", "SIGHUP", "hangup") })
	t.Run("kills what does not stop", func(t *testing.T) { checkKill(t, n, image("sigignore")) })
	t.Run("executes commands in a task", func(t *testing.T) { checkExec(t, n, image("sleep", "600")) })
	t.Run("signals and measures a task", func(t *testing.T) { checkStats(t, n, image("trap", "600")) })
	t.Run("runs many at once", func(t *testing.T) { checkMany(t, n, image("then", "--", "id", "--", "sleep", "1")) })
	t.Run("runs a Task by run info", func(t *testing.T) { checkTaskRunInfo(t, n, ref) })
	t.Run("runs an LRP by run info", func(t *testing.T) { checkLRPRunInfo(t, n, ref) })
}

func checkNode(t *testing.T, n *driverNode) {
	t.Helper()
	nodes, _, err := n.cluster.Nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	node, _, err := n.cluster.Nomad.Nodes().Info(nodes[0].ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info := node.Drivers["drover"]; info == nil || !info.Healthy {
		t.Errorf("driver is not healthy: %+v", info)
	}
	for _, name := range []string{"driver.drover.version", "driver.drover.kernel", "driver.drover.cgroup", "driver.drover.userns", "driver.drover.seccomp"} {
		if node.Attributes[name] == "" {
			t.Errorf("the node has no attribute %s", name)
		}
	}
}

func checkExit(t *testing.T, n *driverNode, config map[string]any, code int, signal, oom string) {
	t.Helper()
	alloc := n.start(t, taskOf("exit-"+strconv.Itoa(code)+"-"+oom, nomad.JobTypeBatch, config))
	state := n.await(t, alloc, "dead")
	end := event(state, nomad.TaskTerminated)
	if end.Details["exit_code"] != strconv.Itoa(code) || end.Details["signal"] != signal || end.Details["oom_killed"] != oom {
		t.Errorf("ended with %v, want code %d, signal %s, out of memory %s\n%s", end.Details, code, signal, oom, describe(state))
	}
}

func checkSignalled(t *testing.T, n *driverNode, config map[string]any) {
	t.Helper()
	alloc := n.start(t, taskOf("signalled", nomad.JobTypeBatch, config))
	n.await(t, alloc, "running")
	if err := n.cluster.Nomad.Allocations().Signal(alloc, nil, "main", "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	state := n.await(t, alloc, "dead")
	if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "137" || end["signal"] != "9" || end["oom_killed"] != "false" {
		t.Errorf("ended with %v, want 137 by signal 9", end)
	}
}

func checkDirectories(t *testing.T, n *driverNode, image func(...string) map[string]any) {
	t.Helper()
	alloc := n.start(t, taskOf("dirs", nomad.JobTypeBatch, image("then",
		"--", "write", "/alloc/data/shared", "for all", "--", "write", "/local/mine", "for me", "--", "cat", "/secrets/token",
		"--", "write", "/alloc/logs/forged", "x"), func(_ *nomad.Job, task *nomad.Task) {
		task.Templates = []*nomad.Template{{EmbeddedTmpl: new("from a template\n"), DestPath: new("secrets/token")}}
	}))
	state := n.await(t, alloc, "dead")
	n.awaitLog(t, alloc, "stdout", "from a template\n")
	n.awaitLog(t, alloc, "stderr", "read-only file system")
	if event(state, nomad.TaskTerminated).Details["exit_code"] != "1" {
		t.Errorf("the task could write to its logs: %s", describe(state))
	}
	dir := filepath.Join(n.cluster.DataDir(), "alloc", alloc.ID)
	for path, want := range map[string]string{"alloc/data/shared": "for all\n", "main/local/mine": "for me\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s on the host: %q, %v", path, got, err)
		}
	}
}

func checkStop(t *testing.T, n *driverNode, config map[string]any, killSignal, name, _ string) {
	t.Helper()
	alloc := n.start(t, taskOf("stop-"+name, nomad.JobTypeService, config, func(_ *nomad.Job, task *nomad.Task) { task.KillSignal = killSignal }))
	n.await(t, alloc, "running")
	n.awaitLog(t, alloc, "stdout", "ready")
	if _, err := n.cluster.Nomad.Allocations().Stop(alloc, nil); err != nil {
		t.Fatal(err)
	}
	state := n.await(t, alloc, "dead")
	if got := n.logs(t, alloc, "stdout"); !strings.Contains(got, name) {
		t.Errorf("the task got %q, want %s", got, name)
	}
	if code := event(state, nomad.TaskTerminated).Details["exit_code"]; code != "0" {
		t.Errorf("exit code %s, want 0: %s", code, describe(state))
	}
}

func checkKill(t *testing.T, n *driverNode, config map[string]any) {
	t.Helper()
	alloc := n.start(t, taskOf("stubborn", nomad.JobTypeService, config, func(_ *nomad.Job, task *nomad.Task) { task.KillTimeout = new(time.Second) }))
	n.await(t, alloc, "running")
	n.awaitLog(t, alloc, "stdout", "ready")
	began := time.Now()
	if _, err := n.cluster.Nomad.Allocations().Stop(alloc, nil); err != nil {
		t.Fatal(err)
	}
	state := n.await(t, alloc, "dead")
	if end := event(state, nomad.TaskTerminated).Details; end["exit_code"] != "137" || end["signal"] != "9" || end["oom_killed"] != "false" {
		t.Errorf("ended with %v, want 137 by signal 9", end)
	}
	if took := time.Since(began); took < time.Second || took > 25*time.Second {
		t.Errorf("was killed after %v, want after kill_timeout, 1s", took)
	}
}

func checkExec(t *testing.T, n *driverNode, config map[string]any) {
	t.Helper()
	alloc := n.start(t, taskOf("exec", nomad.JobTypeService, config, func(_ *nomad.Job, task *nomad.Task) { task.Env = map[string]string{"GREETING": "hello"} }))
	n.await(t, alloc, "running")
	if code, out, errs := n.exec(t, alloc, false, nil, nil, "/bin/probe", "then", "--", "echo", "out", "--", "err", "err", "--", "exit", "43"); code != 43 || out != "out\n" || errs != "err\n" {
		t.Errorf("got %d, %q, %q, want 43, out, err", code, out, errs)
	}
	if code, out, _ := n.exec(t, alloc, false, strings.NewReader("through and through"), nil, "/bin/probe", "cat"); code != 0 || out != "through and through" {
		t.Errorf("stdin came back as %q with %d", out, code)
	}
	if _, out, _ := n.exec(t, alloc, false, nil, nil, "/bin/probe", "env", "GREETING"); out != "hello\n" {
		t.Errorf("the command does not see the task's environment: %q", out)
	}
	if _, out, _ := n.exec(t, alloc, false, nil, nil, "/bin/probe", "id"); !strings.Contains(out, "uid=2000") {
		t.Errorf("the command is not the task's user: %q", out)
	}
	sizes := make(chan nomad.TerminalSize, 1)
	sizes <- nomad.TerminalSize{Height: 50, Width: 120}
	eventually(t, 10*time.Second, "the terminal has not the caller's size", func() (bool, string) {
		_, out, _ := n.exec(t, alloc, true, nil, sizes, "/bin/probe", "then", "--", "sleep", "0.2", "--", "stty")
		select {
		case sizes <- nomad.TerminalSize{Height: 50, Width: 120}:
		default:
		}
		return strings.Contains(out, "120") && strings.Contains(out, "50"), out
	})
}

func checkStats(t *testing.T, n *driverNode, config map[string]any) {
	t.Helper()
	alloc := n.start(t, taskOf("stats", nomad.JobTypeService, config))
	n.await(t, alloc, "running")
	eventually(t, 20*time.Second, "there are no stats", func() (bool, string) {
		stats, err := n.cluster.Nomad.Allocations().Stats(alloc, nil)
		if err != nil {
			return false, err.Error()
		}
		task := stats.Tasks["main"]
		return task != nil && task.ResourceUsage.MemoryStats.Usage > 0, fmt.Sprintf("%+v", stats.Tasks)
	})
	n.awaitLog(t, alloc, "stdout", "ready")
	if err := n.cluster.Nomad.Allocations().Signal(alloc, nil, "main", "SIGHUP"); err != nil {
		t.Fatal(err)
	}
	n.awaitLog(t, alloc, "stdout", "SIGHUP")
	if err := n.cluster.Nomad.Allocations().Signal(alloc, nil, "main", "SIGNONSENSE"); err == nil || !strings.Contains(err.Error(), "SIGNONSENSE") {
		t.Errorf("an unknown signal: %v", err)
	}
}

func checkMany(t *testing.T, n *driverNode, config map[string]any) {
	t.Helper()
	const many = 12
	job := taskOf("many", nomad.JobTypeBatch, config, func(_ *nomad.Job, task *nomad.Task) { task.Resources.CPU = new(20) })
	job.TaskGroups[0].Count = new(many)
	n.start(t, job)
	eventually(t, 60*time.Second, "not all are complete", func() (bool, string) {
		allocs, _, err := n.cluster.Nomad.Jobs().Allocations("many", true, nil)
		if err != nil {
			return false, err.Error()
		}
		complete, seen := 0, ""
		for _, alloc := range allocs {
			if alloc.ClientStatus == nomad.AllocClientStatusFailed {
				t.Fatalf("one failed: %s", describe(alloc.TaskStates["main"]))
			}
			if alloc.ClientStatus == nomad.AllocClientStatusComplete {
				complete++
			}
			seen += alloc.ClientStatus + " "
		}
		return complete == many, seen
	})
}

// withRunInfo hands run info to the driver as the bridge's jobs do.
func withRunInfo(t *testing.T, info driver.RunInfo) func(*nomad.Job, *nomad.Task) {
	t.Helper()
	text, err := driver.EncodeRunInfo(info)
	if err != nil {
		t.Fatal(err)
	}
	return func(_ *nomad.Job, task *nomad.Task) {
		task.Templates = []*nomad.Template{{EmbeddedTmpl: &text, DestPath: new(driver.RunInfoFile)}}
	}
}

// dockerURL is Diego's way to name an image.
func dockerURL(ref string) string {
	repository, tag, _ := strings.Cut(ref[strings.LastIndex(ref, "/")+1:], ":")
	return "docker://" + ref[:strings.LastIndex(ref, "/")+1] + repository + "#" + tag
}

func checkTaskRunInfo(t *testing.T, n *driverNode, ref string) {
	t.Helper()
	archive := drivertest.Tar(t, drivertest.Dir("app", 0o755), drivertest.File("app/motd", 0o644, "unpacked\n"))
	sum := sha256.Sum256(archive)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(archive)
	}))
	t.Cleanup(server.Close)
	definition := &models.TaskDefinition{
		RootFs: dockerURL(ref), ResultFile: "/tmp/result", LogSource: "STG", MemoryMb: 64,
		EnvironmentVariables: []*models.EnvironmentVariable{{Name: "WHO", Value: "task"}, {Name: "SECRET", Value: canary}},
		Action: models.WrapAction(models.Serial(
			&models.DownloadAction{From: server.URL + "/app.tar?signature=" + canary, To: ".", User: "vcap", ChecksumAlgorithm: "sha256", ChecksumValue: hex.EncodeToString(sum[:])},
			&models.RunAction{Path: "/bin/probe", Args: []string{"then", "--", "cat", "/home/vcap/app/motd", "--", "env", "--", "write", "/tmp/result", "the result"}, User: "vcap"},
		)),
	}
	raw, err := definition.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	alloc := n.start(t, taskOf("run-info-task", nomad.JobTypeBatch, map[string]any{"run_info": true},
		withRunInfo(t, driver.RunInfo{Kind: driver.KindTask, GUID: "guid", Definition: raw})))
	state := n.await(t, alloc, "dead")
	if state.Failed {
		t.Fatal(describe(state))
	}
	n.awaitLog(t, alloc, "stdout", "unpacked\n")
	got := n.logs(t, alloc, "stdout")
	if !strings.Contains(got, "WHO=task") || !strings.Contains(got, "CF_INSTANCE_IP=") || strings.Contains(got, "NOMAD_") || strings.Contains(got, "INSTANCE_GUID=") {
		t.Errorf("environment of a Task:\n%s", got)
	}
	ended := phase(state, driver.PhaseEnded)
	if result, _ := base64.StdEncoding.DecodeString(ended[driver.AnnotationResult]); string(result) != "the result\n" {
		t.Errorf("the event does not carry the result: %v\n%s", ended, describe(state))
	}
	if fetched := phase(state, driver.PhaseFetch); fetched[driver.AnnotationMillis] == "" {
		t.Errorf("the download was not made a layer: %s", describe(state))
	}
}

func checkLRPRunInfo(t *testing.T, n *driverNode, ref string) {
	t.Helper()
	lrp := &models.DesiredLRP{
		ProcessGuid: "guid-1", RootFs: dockerURL(ref), LogSource: "APP", MemoryMb: 64, StartTimeoutMs: 20000,
		Action:  models.WrapAction(models.Codependent(&models.RunAction{Path: "/bin/probe", Args: []string{"then", "--", "env", "--", "trap", "600"}, User: "vcap", LogSource: "APP/PROC/WEB"})),
		Monitor: models.WrapAction(models.Timeout(&models.RunAction{Path: "/bin/probe", Args: []string{"exit", "0"}, User: "vcap", SuppressLogOutput: true}, 10*time.Second)),
	}
	raw, err := lrp.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	alloc := n.start(t, taskOf("run-info-lrp", nomad.JobTypeService, map[string]any{"run_info": true},
		withRunInfo(t, driver.RunInfo{Kind: driver.KindLRP, GUID: "guid-1", Definition: raw})))
	n.await(t, alloc, "running")
	eventually(t, 20*time.Second, "the instance is not healthy", func() (bool, string) {
		state, err := n.task(alloc)
		if err != nil {
			return false, err.Error()
		}
		started, healthy := phase(state, driver.PhaseStarted), phase(state, driver.PhaseHealthy)
		guid := started[driver.AnnotationInstanceGUID]
		return guid != "" && guid == healthy[driver.AnnotationInstanceGUID], describe(state)
	})
	n.awaitLog(t, alloc, "stdout", "\nINSTANCE_INDEX=0\n")
	if _, err := n.cluster.Nomad.Allocations().Stop(alloc, nil); err != nil {
		t.Fatal(err)
	}
	n.await(t, alloc, "dead")
}

// phase returns the annotations of the driver's last event about a phase.
func phase(s *nomad.TaskState, name string) map[string]string {
	for i := len(s.Events) - 1; i >= 0; i-- {
		if s.Events[i].Details[driver.AnnotationPhase] == name {
			return s.Events[i].Details
		}
	}
	return nil
}
