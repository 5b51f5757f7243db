// Package apps is what a person does with apps on a running platform: push, look, follow logs, run tasks, scale and
// delete, with progress in words. The commands of drover and its demo are thin layers over a Session.
package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"drover/bridge/translate"
	"drover/cmd/drover/controller"
	"drover/cmd/drover/controller/recipe"
	"drover/cmd/drover/controller/server"
	"drover/cmd/drover/dev"
	"drover/cmd/drover/logs"

	"code.cloudfoundry.org/bbs/models"
	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"
)

// Session works with the apps of one platform.
type Session struct {
	// Controller asks for what is done.
	Controller *controller.Controller

	info     dev.Info
	nomad    *nomad.Client
	consul   *consul.Client
	out      io.Writer
	progress io.Writer
}

// Open connects to a platform. Results go to out, and what happens on the way there to progress.
func Open(info dev.Info, out, progress io.Writer) (*Session, error) {
	c, err := info.Connect()
	if err != nil {
		return nil, err
	}
	// Nomad and Consul of the platform are meant, whatever the environment says of others.
	nomadClient, err := nomad.NewClient(&nomad.Config{Address: info.Nomad})
	if err != nil {
		return nil, fmt.Errorf("connect to Nomad: %w", err)
	}
	consulClient, err := consul.NewClient(&consul.Config{Address: info.Consul})
	if err != nil {
		return nil, fmt.Errorf("connect to Consul: %w", err)
	}
	output := &lockedWriter{to: progress}
	return &Session{Controller: c, info: info, nomad: nomadClient, consul: consulClient, out: out, progress: output}, nil
}

// lockedWriter lets several goroutines write whole lines.
type lockedWriter struct {
	mutex sync.Mutex
	to    io.Writer
}

// Write writes all of a line, or what the writer below takes.
func (w *lockedWriter) Write(line []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.to.Write(line)
}

func (s *Session) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.progress, format+"\n", args...)
}

// Push stages and starts an app, shows the staging log while it grows, and returns when all instances run.
func (s *Session) Push(ctx context.Context, push controller.Push) (recipe.App, error) {
	watch := controller.Observer{
		Step: func(format string, args ...any) { s.say("-- "+format, args...) },
		Staging: func(ctx context.Context, guid string) func() {
			return s.follow(ctx, translate.TaskJobID(guid), func(int) string { return "STG/0" }, s.progress)
		},
	}
	app, err := s.Controller.Push(ctx, push, watch)
	if err != nil {
		return app, err
	}
	if err := s.Controller.AwaitRunning(ctx, app, watch); err != nil {
		return app, fmt.Errorf("%w\nlook at `drover logs %s`", err, app.Name)
	}
	return app, nil
}

// follow prints a job's output in the background; the function that it returns ends that, with the last lines.
func (s *Session) follow(ctx context.Context, job string, source func(int) string, out io.Writer) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := logs.New(s.nomad, job, translate.TaskName, source, out).Follow(ctx); err != nil {
			s.say("-- the log cannot be shown: %v", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// Logs prints what an app's instances wrote; with follow, until ctx ends.
func (s *Session) Logs(ctx context.Context, name string, follow bool) error {
	app, err := s.Controller.App(ctx, name)
	if err != nil {
		return err
	}
	source := func(index int) string { return "APP/PROC/WEB/" + strconv.Itoa(index) }
	reader := logs.New(s.nomad, translate.LRPJobID(app.LRPGUID()), translate.TaskName, source, s.out)
	if follow {
		return reader.Follow(ctx)
	}
	err = reader.Read(ctx)
	reader.Flush()
	return err
}

// Task runs a one-off command with an app's droplet, shows its output, and returns how it ended.
func (s *Session) Task(ctx context.Context, name, command string) (server.Task, error) {
	return s.Controller.RunTask(ctx, name, command, func(ctx context.Context, guid string) func() {
		s.say("-- task %s runs", guid[:8])
		return s.follow(ctx, translate.TaskJobID(guid), func(int) string { return "APP/TASK/" + guid[:8] }, s.out)
	})
}

// Scale changes the number of an app's instances and waits until they run.
func (s *Session) Scale(ctx context.Context, name string, instances int32) (recipe.App, error) {
	app, err := s.Controller.Scale(ctx, name, instances)
	if err != nil {
		return app, err
	}
	watch := controller.Observer{Step: func(format string, args ...any) { s.say("-- "+format, args...) }}
	return app, s.Controller.AwaitRunning(ctx, app, watch)
}

// Instance is an instance of an app for people.
type Instance struct {
	Index int32
	State string
	Since time.Time
	// Address is host:port of the first port where the instance is reached, empty while it has none.
	Address string
	Details string
	// GUID is new with each start of a container.
	GUID string
}

// Instances lists an app's instances in order.
func (s *Session) Instances(ctx context.Context, app recipe.App) ([]Instance, error) {
	actual, err := s.Controller.Instances(ctx, app)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(actual, func(a, b *models.ActualLRP) int { return int(a.Index - b.Index) })
	list := make([]Instance, 0, len(actual))
	for _, lrp := range actual {
		details := lrp.PlacementError
		if details == "" {
			details = lrp.CrashReason
		}
		list = append(list, Instance{
			Index: lrp.Index, State: controller.State(lrp), Since: time.Unix(0, lrp.Since),
			Address: address(lrp), Details: details, GUID: lrp.InstanceGuid,
		})
	}
	return list, nil
}

func address(lrp *models.ActualLRP) string {
	if lrp.Address == "" || len(lrp.Ports) == 0 {
		return ""
	}
	return net.JoinHostPort(lrp.Address, strconv.FormatUint(uint64(lrp.Ports[0].HostPort), 10))
}

// URLs are the addresses of an app's healthy instances, as Consul knows them.
func (s *Session) URLs(ctx context.Context, app recipe.App) ([]string, error) {
	ports, err := app.Droplet.Ports()
	if err != nil {
		return nil, err
	}
	service := translate.ServiceName(app.LRPGUID(), ports, ports[0])
	entries, _, err := s.consul.Health().Service(service, "", true, (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("ask Consul for %s: %w", service, err)
	}
	var urls []string
	for _, entry := range entries {
		if entry.Service.Meta["drover_guid"] == app.LRPGUID() {
			urls = append(urls, fmt.Sprintf("http://%s:%d", entry.Service.Address, entry.Service.Port))
		}
	}
	slices.Sort(urls)
	return urls, nil
}

// AwaitURLs waits until Consul knows as many healthy instances of an app as it has.
func (s *Session) AwaitURLs(ctx context.Context, app recipe.App) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		urls, err := s.URLs(ctx, app)
		if err == nil && len(urls) == int(app.Instances) {
			return urls, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("consul knows %d healthy instances of %s, want %d", len(urls), app.Name, app.Instances), err)
		}
	}
}

// Service is the name under which Consul knows an app.
func Service(app recipe.App) string {
	return translate.ServiceName(app.LRPGUID(), []uint32{0}, 0)
}
