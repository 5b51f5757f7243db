// Package demo shows, without a person, that the whole line works: it brings up a platform, pushes an app and an image,
// calls them, scales, kills, follows logs, runs a task, deletes everything, takes the platform down and looks for what
// was left behind. What it prints is meant to be read; its last line is "demo: ok".
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"drover/bridge/translate"
	"drover/cmd/drover/apps"
	"drover/cmd/drover/controller"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"
	"drover/cmd/drover/dev"
	"drover/cmd/drover/stack"
	"drover/stager/bundle"

	"github.com/hashicorp/nomad/api"
)

// demo is one run.
type demo struct {
	out      io.Writer
	platform *dev.Platform
	session  *apps.Session
	shown    *bytes.Buffer // what the session printed last
	dir      string
	traces   traces
	node     recipe.App
	web      recipe.App
	began    time.Time
}

// scene is one thing that is shown.
type scene struct {
	title string
	play  func(d *demo, ctx context.Context) error
}

func scenes() []scene {
	return []scene{
		{"push the Node.js app, two instances", (*demo).pushNode},
		{"push the Docker image", (*demo).pushWeb},
		{"call both where Consul says they are", (*demo).callBoth},
		{"scale the Node.js app to three", (*demo).scale},
		{"kill a container and see it come back", (*demo).kill},
		{"show the app's logs", (*demo).logs},
		{"run a one-off task", (*demo).task},
		{"delete both apps", (*demo).deleteBoth},
	}
}

// Run plays the demo on a platform of its own below dir, which is removed when all went well.
func Run(ctx context.Context, config dev.Config, out io.Writer) error {
	d := &demo{out: out, dir: config.Dir, shown: &bytes.Buffer{}, began: time.Now()}
	d.traces.dirs, d.traces.links, d.traces.groups = []string{config.Dir}, links(), dev.Cgroups()
	err := d.run(ctx, config)
	if err != nil {
		return fmt.Errorf("%w\nlogs are kept in %s", err, filepath.Join(config.Dir, "logs"))
	}
	if err := os.RemoveAll(config.Dir); err != nil {
		return fmt.Errorf("remove the state directory: %w", err)
	}
	_, err = fmt.Fprintf(out, "\ndemo: ok (%s)\n", time.Since(d.began).Round(time.Second))
	return err
}

func (d *demo) run(ctx context.Context, config dev.Config) error {
	d.title("bring up a platform")
	platform, err := dev.Start(ctx, config)
	if err != nil {
		return fmt.Errorf("bring up a platform: %w", err)
	}
	d.platform = platform
	d.traces.dirs = append(d.traces.dirs, platform.Info.Tasks)
	err = d.play(ctx)
	d.title("take the platform down")
	if stopped := platform.Stop(context.WithoutCancel(ctx)); stopped != nil {
		err = errors.Join(err, fmt.Errorf("take the platform down: %w", stopped))
	}
	if err != nil {
		return err
	}
	return d.lookForLeftovers(ctx)
}

// play shows the scenes, and stops early when a part of the platform ends.
func (d *demo) play(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		if err := d.platform.Wait(ctx); err != nil {
			cancel(err)
		}
	}()
	var noting sync.WaitGroup
	defer noting.Wait()
	defer cancel(nil)
	noting.Go(func() { d.noteAllocs(ctx) })
	var err error
	if d.session, err = apps.Open(d.platform.Info, io.MultiWriter(d.out, d.shown), d.out); err != nil {
		return err
	}
	for _, s := range scenes() {
		d.title(s.title)
		if err := s.play(d, ctx); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", s.title, err), context.Cause(ctx))
		}
	}
	return nil
}

func (d *demo) title(text string) {
	_, _ = fmt.Fprintf(d.out, "\n== %s (%.1fs)\n", text, time.Since(d.began).Seconds())
}

func (d *demo) print(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format+"\n", args...)
}

func (d *demo) pushNode(ctx context.Context) error {
	source := filepath.Join(d.dir, "sample-app")
	if err := os.RemoveAll(source); err != nil { // of a demo that failed
		return fmt.Errorf("write the sample app: %w", err)
	}
	if err := os.CopyFS(source, bundle.SampleNodeApp()); err != nil {
		return fmt.Errorf("write the sample app: %w", err)
	}
	var err error
	d.node, err = d.session.Push(ctx, controller.Push{Name: "hello", Dir: source, Instances: 2})
	return err
}

func (d *demo) pushWeb(ctx context.Context) error {
	var err error
	d.web, err = d.session.Push(ctx, controller.Push{
		Name: "web", Image: d.platform.Info.Web, Instances: 1,
		Check: recipe.HealthCheck{Type: recipe.CheckHTTP, Endpoint: "/healthz", Timeout: time.Minute},
	})
	return err
}

func (d *demo) callBoth(ctx context.Context) error {
	if err := d.call(ctx, d.node, `"user":"vcap"`); err != nil {
		return err
	}
	return d.call(ctx, d.web, strings.TrimSpace(stack.WebText))
}

// call gets / of each instance of an app and looks for a text in the answer.
func (d *demo) call(ctx context.Context, app recipe.App, want string) error {
	urls, err := d.session.AwaitURLs(ctx, app)
	if err != nil {
		return err
	}
	for _, url := range urls {
		answer, err := get(ctx, url)
		if err != nil {
			return err
		}
		d.print("curl %s/\n%s", url, answer)
		if !strings.Contains(answer, want) {
			return fmt.Errorf("%s did not answer with %s", url, want)
		}
	}
	return nil
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("call %s: %w", url, err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("call %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("call %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("call %s: status %d", url, response.StatusCode)
	}
	return strings.TrimSpace(string(text)), nil
}

func (d *demo) scale(ctx context.Context) error {
	before, err := d.session.Instances(ctx, d.node)
	if err != nil {
		return err
	}
	if d.node, err = d.session.Scale(ctx, d.node.Name, 3); err != nil {
		return err
	}
	after, err := d.session.Instances(ctx, d.node)
	if err != nil {
		return err
	}
	for i := range before {
		if after[i].GUID != before[i].GUID {
			return fmt.Errorf("scaling restarted instance %d", i)
		}
	}
	return d.call(ctx, d.node, `"user":"vcap"`)
}

func (d *demo) kill(ctx context.Context) error {
	before, err := d.session.Instances(ctx, d.node)
	if err != nil {
		return err
	}
	victim := before[len(before)-1]
	alloc, err := d.allocOf(ctx, d.node, victim.Index)
	if err != nil {
		return err
	}
	if err := killContainer(alloc); err != nil {
		return err
	}
	d.print("killed process 1 of instance %d's container", victim.Index)
	began := time.Now()
	err = await(ctx, 90*time.Second, "the instance is not back", func() (bool, error) {
		instances, err := d.session.Instances(ctx, d.node)
		if err != nil || len(instances) != len(before) {
			return false, err
		}
		now := instances[len(instances)-1]
		return now.State == "RUNNING" && now.GUID != victim.GUID, nil
	})
	if err != nil {
		return err
	}
	d.print("instance %d is back after %.1fs, as a new container", victim.Index, time.Since(began).Seconds())
	return d.call(ctx, d.node, `"user":"vcap"`)
}

// allocOf is the allocation that holds an instance of an app.
func (d *demo) allocOf(ctx context.Context, app recipe.App, index int32) (string, error) {
	job := translate.LRPJobID(app.LRPGUID())
	allocs, _, err := d.platform.Cluster.Nomad.Jobs().Allocations(job, false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("list allocations: %w", err)
	}
	for _, alloc := range allocs {
		if alloc.ClientStatus == api.AllocClientStatusRunning && strings.HasSuffix(alloc.Name, fmt.Sprintf("[%d]", index)) {
			return alloc.ID, nil
		}
	}
	return "", fmt.Errorf("instance %d of %s has no allocation", index, app.Name)
}

func (d *demo) logs(ctx context.Context) error {
	d.shown.Reset()
	if err := d.session.Logs(ctx, d.node.Name, false); err != nil {
		return err
	}
	if text := d.shown.String(); !strings.Contains(text, "[APP/PROC/WEB/0] OUT GET /") {
		return errors.New("the log does not hold the requests that were made")
	}
	return nil
}

func (d *demo) task(ctx context.Context) error {
	d.shown.Reset()
	task, err := d.session.Task(ctx, d.node.Name, `echo "$(id -un) computes $((6 * 7)) with node $(node --version)"`)
	if err != nil {
		return err
	}
	if task.State != server.StateSucceeded {
		return fmt.Errorf("the task failed: %s", task.Completion.FailureReason)
	}
	d.print("task %s", task.State)
	if !strings.Contains(d.shown.String(), "vcap computes 42 with node v") {
		return errors.New("the task's output is missing")
	}
	return nil
}

func (d *demo) deleteBoth(ctx context.Context) error {
	for _, app := range []recipe.App{d.node, d.web} {
		if err := d.session.Controller.Delete(ctx, app.Name); err != nil {
			return err
		}
	}
	return await(ctx, time.Minute, "instances are still there", func() (bool, error) {
		for _, app := range []recipe.App{d.node, d.web} {
			urls, err := d.session.URLs(ctx, app)
			if err != nil || len(urls) > 0 {
				return false, err
			}
			instances, err := d.session.Instances(ctx, app)
			if err != nil || len(instances) > 0 {
				return false, err
			}
		}
		return true, nil
	})
}

// noteAllocs remembers which allocations there are, until ctx ends, for the search for what they left.
func (d *demo) noteAllocs(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		allocs, _, err := d.platform.Cluster.Nomad.Allocations().List((&api.QueryOptions{Namespace: "*"}).WithContext(ctx))
		for _, alloc := range allocs {
			d.traces.add(alloc.ID)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if err != nil && ctx.Err() == nil {
			return // Nomad is gone, of which others tell
		}
	}
}

func (d *demo) lookForLeftovers(ctx context.Context) error {
	d.title("look for what was left behind")
	var left []string
	err := await(ctx, 10*time.Second, "something is left behind", func() (bool, error) {
		left = d.traces.left(ctx)
		return len(left) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%w:\n  %s", err, strings.Join(left, "\n  "))
	}
	d.print("no process, mount, cgroup, network namespace, device or packet filter rule of %d allocations is left", len(d.traces.allocs))
	return nil
}

// await looks again and again until met says yes or fails, for so long.
func await(ctx context.Context, patience time.Duration, otherwise string, met func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := met(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", otherwise, ctx.Err())
		}
	}
}
