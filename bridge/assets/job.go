package assets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxJob bounds what is read of a job.
const maxJob = 1 << 20

// job is Cloud Controller's word on work that it does after it answered.
type job struct {
	Metadata struct {
		URL string `json:"url"`
	} `json:"metadata"`
	Entity struct {
		Status string `json:"status"`
	} `json:"entity"`
}

// await polls a job, whose first state is in body, until it has ended. A job's URL may be relative to that of the
// upload. The status of the answers is not looked at: Cloud Controllers differ in it, and the job says it all.
func (u *Uploader) await(ctx context.Context, upload *url.URL, body io.Reader) error {
	j, err := read(body)
	for err == nil {
		switch j.Entity.Status {
		case "finished":
			return nil
		case "queued", "running":
		default:
			return fmt.Errorf("the upload job of Cloud Controller has status %q", j.Entity.Status)
		}
		if err = u.pause(ctx); err == nil {
			j, err = u.look(ctx, upload, j.Metadata.URL)
		}
	}
	return fmt.Errorf("follow the upload job of Cloud Controller: %w", withoutURL(err))
}

func read(body io.Reader) (job, error) {
	var j job
	err := json.NewDecoder(io.LimitReader(body, maxJob)).Decode(&j)
	return j, err
}

func (u *Uploader) look(ctx context.Context, upload *url.URL, where string) (job, error) {
	ref, err := url.Parse(where)
	if err != nil || where == "" {
		return job{}, errors.New("it has no URL")
	}
	target := upload.ResolveReference(ref)
	if !reachable(target) {
		return job{}, errors.New("it has no http or https URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return job{}, err
	}
	response, err := u.http.Do(request)
	if err != nil {
		return job{}, err
	}
	defer func() { _ = response.Body.Close() }()
	return read(response.Body)
}
