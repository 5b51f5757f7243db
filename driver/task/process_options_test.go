package task

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func TestProcessWish(t *testing.T) {
	logging := func(kind string, config ...string) ProcessWish {
		w := ProcessWish{Logging: LoggingWish{Type: kind, Config: map[string]string{}}}
		for _, entry := range config {
			name, value, _ := strings.Cut(entry, "=")
			w.Logging.Config[name] = value
		}
		return w
	}
	for _, row := range []struct {
		promise string
		wish    ProcessWish
		says    string
	}{
		{"takes nothing", ProcessWish{}, ""},
		{"takes all", ProcessWish{Init: true, TTY: true, Interactive: true, Labels: map[string]string{"a": ""}, Logging: logging("nomad", "rate_limit=1MiB").Logging}, ""},
		{"takes a rate per second", logging("", "rate_limit=1k/s"), ""},
		{"takes no limit", logging("none", "rate_limit=-1"), ""},
		{"refuses another log driver", logging("json-file"), `logging: type "json-file" is not known here; nomad and none are`},
		{"refuses options of other log drivers", logging("nomad", "max-size=2m"), `logging.config: "max-size"`},
		{"refuses another rate", logging("nomad", "rate_limit=fast"), "logging.config.rate_limit"},
		{"refuses a label without a name", ProcessWish{Labels: map[string]string{"": "x"}}, "labels"},
		{"refuses a book as a label", ProcessWish{Labels: map[string]string{"a": strings.Repeat("x", maxLabelBytes)}}, "labels: at most"},
	} {
		t.Run(row.promise, func(t *testing.T) {
			err := row.wish.validate(Config{})
			if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("error %v, want one with %q", err, row.says)
			}
		})
	}
}

func TestApplyProcess(t *testing.T) {
	limited := func(rate string) LoggingWish { return LoggingWish{Config: map[string]string{"rate_limit": rate}} }
	logs := driver.Container{Stdout: "/logs/out", Stderr: "/logs/err"}
	with := func(change func(*driver.Container)) driver.Container {
		c := logs
		change(&c)
		return c
	}
	for _, row := range []struct {
		promise string
		wish    ProcessWish
		node    ProcessConfig
		diego   *int64
		want    driver.Container
	}{
		{"is bare", ProcessWish{}, ProcessConfig{}, nil, logs},
		{"has what the job says", ProcessWish{Init: true, TTY: true, Interactive: true}, ProcessConfig{LogPatience: time.Second}, nil,
			with(func(c *driver.Container) {
				c.Init, c.TTY, c.Interactive, c.Logging = true, true, true, driver.Logging{Patience: time.Second}
			})},
		{"is limited by the job", ProcessWish{Logging: limited("1k")}, ProcessConfig{Logging: limited("2k")}, nil,
			with(func(c *driver.Container) { c.Logging.Limit = new(int64(1024)) })},
		{"is limited by the node", ProcessWish{Logging: LoggingWish{Type: "nomad"}}, ProcessConfig{Logging: limited("2k")}, nil,
			with(func(c *driver.Container) { c.Logging.Limit = new(int64(2048)) })},
		{"is freed by the job", ProcessWish{Logging: limited("-1")}, ProcessConfig{Logging: limited("2k")}, nil, logs},
		{"is limited by the definition", ProcessWish{}, ProcessConfig{Logging: limited("2k")}, new(int64(5)),
			with(func(c *driver.Container) { c.Logging.Limit = new(int64(5)) })},
		{"prints nothing when the definition says zero", ProcessWish{}, ProcessConfig{}, new(int64(0)),
			with(func(c *driver.Container) { c.Logging.Limit = new(int64(0)) })},
		{"is freed by the definition", ProcessWish{}, ProcessConfig{Logging: limited("2k")}, new(int64(-1)), logs},
		{"prints to nobody", ProcessWish{Logging: LoggingWish{Type: "none"}}, ProcessConfig{LogPatience: time.Second, Logging: limited("2k")}, nil,
			driver.Container{Stdout: "/dev/null", Stderr: "/dev/null"}},
	} {
		t.Run(row.promise, func(t *testing.T) {
			got := logs
			f := facts{req: Request{Wish: Wish{Process: row.wish}}, node: Config{Process: row.node}, def: definition{logLimit: row.diego}}
			if err := f.applyProcess(&got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("has no second process 1 with a droplet", func(t *testing.T) {
		c := driver.Container{Work: &driver.Work{}}
		if err := (facts{req: Request{Wish: Wish{Process: ProcessWish{Init: true}}}}).applyProcess(&c); err != nil || c.Init {
			t.Errorf("init %t, error %v", c.Init, err)
		}
	})
	t.Run("refuses a terminal for a droplet", func(t *testing.T) {
		c := driver.Container{Work: &driver.Work{}}
		if err := (facts{req: Request{Wish: Wish{Process: ProcessWish{TTY: true}}}}).applyProcess(&c); err == nil || !strings.Contains(err.Error(), "tty") {
			t.Errorf("error %v", err)
		}
	})
}

func TestLabels(t *testing.T) {
	f := facts{
		node: Config{Process: ProcessConfig{ExtraLabels: []string{"job_*", "namespace"}}},
		req: Request{AllocID: "a1", Names: map[string]string{"job_id": "j", "job_name": "J", "namespace": "n", "node_id": "x"}, Wish: Wish{Process: ProcessWish{
			Labels: map[string]string{"team": "blue", "com.hashicorp.nomad.job_id": "mine"},
		}}},
	}
	want := map[string]string{
		"com.hashicorp.nomad.alloc_id": "a1", "com.hashicorp.nomad.job_id": "j", "com.hashicorp.nomad.job_name": "J",
		"com.hashicorp.nomad.namespace": "n", "team": "blue",
	}
	if diff := cmp.Diff(want, f.labels()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStopSignal(t *testing.T) {
	for _, row := range []struct{ promise, job, image, want, says string }{
		{"is the job's", "SIGINT", "SIGQUIT", "SIGINT", ""},
		{"is the image's", "", "SIGQUIT", "SIGQUIT", ""},
		{"is SIGTERM", "", "", "SIGTERM", ""},
		{"may be a number", "", "3", "3", ""},
		{"is the image's when the job's is none, which is told", "SIGBANANA", "SIGQUIT", "SIGQUIT", `kill_signal "SIGBANANA" is no signal`},
		{"is SIGTERM when the image's is none, which is told", "", "NONSENSE", "SIGTERM", `STOPSIGNAL "NONSENSE" is no signal`},
	} {
		t.Run(row.promise, func(t *testing.T) {
			var told string
			m := New(context.Background(), Config{}, func(e Event) { told += e.Message }, nil)
			if got := m.stopSignal(&Task{Record: Record{StopSignal: row.image}}, row.job); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
			if !strings.Contains(told, row.says) || row.says == "" && told != "" {
				t.Errorf("told %q, want %q", told, row.says)
			}
		})
	}
}
