package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"drover/bridge/mtls"
	"drover/cmd/drover/controller/recipe"
)

// Client is how commands reach a Server.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client of the server at url, which shows the certificate of identity.
func NewClient(url string, identity *mtls.Identity) *Client {
	transport := &http.Transport{TLSClientConfig: identity.Client(), IdleConnTimeout: time.Minute}
	return &Client{base: strings.TrimSuffix(url, "/"), http: &http.Client{Transport: transport}}
}

// App returns an app by its name, or ErrNotFound.
func (c *Client) App(ctx context.Context, name string) (recipe.App, error) {
	var app recipe.App
	err := c.do(ctx, http.MethodGet, "/drover/apps/"+name, nil, &app)
	if errors.Is(err, ErrNotFound) {
		return app, fmt.Errorf("app %q: %w", name, ErrNotFound)
	}
	return app, err
}

// Apps lists all apps in the order of their names.
func (c *Client) Apps(ctx context.Context) ([]recipe.App, error) {
	var apps []recipe.App
	err := c.do(ctx, http.MethodGet, "/drover/apps", nil, &apps)
	slices.SortFunc(apps, func(a, b recipe.App) int { return strings.Compare(a.Name, b.Name) })
	return apps, err
}

// PutApp creates or replaces an app's record.
func (c *Client) PutApp(ctx context.Context, app recipe.App) error {
	if !nameLike.MatchString(app.Name) {
		return fmt.Errorf("app name %q: want letters, digits, dots, dashes and underscores", app.Name)
	}
	return c.put(ctx, "/drover/apps/"+app.Name, app)
}

// DeleteApp forgets an app.
func (c *Client) DeleteApp(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/drover/apps/"+name, nil, nil)
}

// PutPackage uploads an app's bits and returns their SHA-256.
func (c *Client) PutPackage(ctx context.Context, guid string, bits io.Reader) (string, error) {
	var sum checksum
	err := c.do(ctx, http.MethodPut, "/drover/packages/"+guid, bits, &sum)
	return sum.SHA256, err
}

// CacheSHA256 is the checksum of an app's build artifacts cache; empty when it has none.
func (c *Client) CacheSHA256(ctx context.Context, stack, app string) (string, error) {
	var sum checksum
	err := c.do(ctx, http.MethodGet, "/drover/buildpack_cache/"+stack+"/"+app, nil, &sum)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return sum.SHA256, err
}

// PutBuild announces a build, so that its droplet and completion are accepted.
func (c *Client) PutBuild(ctx context.Context, build Build) error {
	return c.put(ctx, "/drover/builds/"+build.GUID, build)
}

// Build returns what is known of a build.
func (c *Client) Build(ctx context.Context, guid string) (Build, error) {
	var build Build
	return build, c.do(ctx, http.MethodGet, "/drover/builds/"+guid, nil, &build)
}

// PutTask announces a Task, so that its completion is accepted.
func (c *Client) PutTask(ctx context.Context, task Task) error {
	return c.put(ctx, "/drover/tasks/"+task.GUID, task)
}

// Task returns what is known of a Task.
func (c *Client) Task(ctx context.Context, guid string) (Task, error) {
	var task Task
	return task, c.do(ctx, http.MethodGet, "/drover/tasks/"+guid, nil, &task)
}

// Release lets the server answer the completion of a build or Task that asked to be held.
func (c *Client) Release(ctx context.Context, guid string) error {
	return c.do(ctx, http.MethodPost, "/drover/release/"+guid, nil, nil)
}

func (c *Client) put(ctx context.Context, path string, record any) error {
	text, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	return c.do(ctx, http.MethodPut, path, bytes.NewReader(text), nil)
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("call the controller: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("call the controller: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was read to its end, or its failure is known
	content, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	switch {
	case err != nil:
		return fmt.Errorf("read the controller's answer: %w", err)
	case response.StatusCode == http.StatusNotFound:
		return ErrNotFound
	case response.StatusCode >= http.StatusMultipleChoices:
		return fmt.Errorf("the controller answered %d: %s", response.StatusCode, strings.TrimSpace(string(content)))
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(content, answer); err != nil {
		return fmt.Errorf("read the controller's answer: %w", err)
	}
	return nil
}
