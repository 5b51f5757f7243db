//go:build bench

package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is a peer's daemon, started for a benchmark with directories of its own.
type daemon struct {
	socket  string
	version string
	client  *http.Client
}

// startDaemon starts a daemon and ends it, by its own process, with the benchmark. It is nil where the program is missing or
// cannot run here, and the benchmark says so.
func startDaemon(b *testing.B, socket string, ready func(ctx context.Context, d *daemon) error, program string, args ...string) *daemon {
	b.Helper()
	d := &daemon{socket: socket, version: version(b.Context(), program)}
	if d.version == "" {
		b.Logf("%s is not installed", program)
		return nil
	}
	d.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}}
	var log bytes.Buffer
	cmd := exec.Command(program, args...) //nolint:noctx // ended below, politely
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its log tells more
	}()
	b.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			b.Errorf("%s did not end when asked", program)
		}
	})
	deadline := time.Now().Add(time.Minute)
	for {
		err := ready(b.Context(), d)
		if err == nil {
			return d
		}
		select {
		case <-ended:
			b.Logf("%s cannot run here:\n%s", program, lastLines(log.String(), 3))
			return nil
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			b.Logf("%s does not answer: %v", program, err)
			return nil
		}
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// startDocker starts Docker without networks: containers are in the host's, as ours are.
func startDocker(b *testing.B) *daemon {
	b.Helper()
	dir, err := os.MkdirTemp("", "dk") //nolint:usetesting // short: its sockets are below it
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = unix.Unmount(filepath.Join(dir, "exec/netns/default"), unix.MNT_DETACH) // Docker leaves it mounted
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(dir, "docker.sock")
	ready := func(ctx context.Context, d *daemon) error { return d.call(ctx, http.MethodGet, "/_ping", nil, nil) }
	return startDaemon(b, socket, ready, "dockerd", "--config-file", config, "--host", "unix://"+socket, "--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "--iptables=false", "--ip6tables=false", "--bridge=none",
		"--storage-driver", "overlay2", "--log-level", "error")
}

// call makes one call of Docker's API.
func (d *daemon) call(ctx context.Context, method, path string, body, answer any) error {
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, in)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(text))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// pull pulls an image by Docker's API, whose errors come inside of the progress.
func (d *daemon) pull(ctx context.Context, image string) error {
	at := strings.LastIndex(image, ":")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://docker/images/create?fromImage="+url.QueryEscape(image[:at])+"&tag="+url.QueryEscape(image[at+1:]), nil)
	if err != nil {
		return err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	for lines := json.NewDecoder(response.Body); ; {
		var line struct{ Error, Message string }
		err := lines.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line.Error != "" || response.StatusCode >= 300:
			return fmt.Errorf("pull %s: %s%s", image, line.Error, line.Message)
		}
	}
}

// run makes and starts a container and returns its id.
func (d *daemon) run(ctx context.Context, image string, args []string) (string, error) {
	body := map[string]any{
		"Image": image, "Cmd": args,
		"HostConfig": map[string]any{
			"NetworkMode": "host", "Memory": 64 << 20, "PidsLimit": 64, "SecurityOpt": []string{"no-new-privileges"},
			"LogConfig": map[string]any{"Type": "none"},
		},
	}
	var made struct{ ID string }
	if err := d.call(ctx, http.MethodPost, "/containers/create", body, &made); err != nil {
		return "", err
	}
	return made.ID, d.call(ctx, http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
}

func (d *daemon) remove(ctx context.Context, id string) error {
	return d.call(ctx, http.MethodDelete, "/containers/"+id+"?force=1", nil, nil)
}
