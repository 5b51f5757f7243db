// Package diego calls a BBS as Cloud Controller does: these routes and no others, protobuf over mutual TLS, an answer
// of 200 that may hold an error, and retries only when no answer came.
//
// Errors that the BBS answers are *models.Error values; models.ConvertError finds them. A missing LRP or Task is told
// apart with IsNotFound.
package diego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"drover/bridge/mtls"

	"code.cloudfoundry.org/bbs/models"
	"github.com/gogo/protobuf/proto"
)

const (
	maxAnswer  = 64 << 20
	callTime   = 10 * time.Second
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
	giveUp     = time.Minute
)

// Client calls one BBS.
type Client struct {
	base string
	http *http.Client
	// patience is how long a call is retried; tests make it short.
	patience time.Duration
}

// New returns a client of the BBS at url, which shows the certificate of identity.
func New(url string, identity *mtls.Identity) *Client {
	transport := &http.Transport{TLSClientConfig: identity.Client(), MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
	return &Client{
		base:     strings.TrimSuffix(url, "/"),
		http:     &http.Client{Transport: transport, Timeout: callTime},
		patience: giveUp,
	}
}

// IsNotFound tells whether an error says that the LRP or Task is not there.
func IsNotFound(err error) bool {
	var answer *models.Error
	return errors.As(err, &answer) && answer.Type == models.Error_ResourceNotFound
}

// UpsertDomain vouches for a domain for a time.
func (c *Client) UpsertDomain(ctx context.Context, domain string, ttl time.Duration) error {
	var answer models.UpsertDomainResponse
	request := &models.UpsertDomainRequest{Domain: domain, Ttl: uint32(ttl.Seconds())}
	if err := c.call(ctx, "/v1/domains/upsert", request, &answer); err != nil {
		return err
	}
	return failure(answer.Error)
}

// DesireTask starts a Task.
func (c *Client) DesireTask(ctx context.Context, guid, domain string, task *models.TaskDefinition) error {
	var answer models.TaskLifecycleResponse
	request := &models.DesireTaskRequest{TaskDefinition: task, TaskGuid: guid, Domain: domain}
	if err := c.call(ctx, "/v1/tasks/desire.r2", request, &answer); err != nil {
		return err
	}
	return failure(answer.Error)
}

// Task returns one Task.
func (c *Client) Task(ctx context.Context, guid string) (*models.Task, error) {
	var answer models.TaskResponse
	if err := c.call(ctx, "/v1/tasks/get_by_task_guid.r2", &models.TaskByGuidRequest{TaskGuid: guid}, &answer); err != nil {
		return nil, err
	}
	return answer.Task, failure(answer.Error)
}

// CancelTask ends a Task before its time.
func (c *Client) CancelTask(ctx context.Context, guid string) error {
	var answer models.TaskLifecycleResponse
	if err := c.call(ctx, "/v1/tasks/cancel", &models.TaskGuidRequest{TaskGuid: guid}, &answer); err != nil {
		return err
	}
	return failure(answer.Error)
}

// DesireLRP starts an LRP.
func (c *Client) DesireLRP(ctx context.Context, lrp *models.DesiredLRP) error {
	var answer models.DesiredLRPLifecycleResponse
	if err := c.call(ctx, "/v1/desired_lrp/desire.r2", &models.DesireLRPRequest{DesiredLrp: lrp}, &answer); err != nil {
		return err
	}
	return failure(answer.Error)
}

// DesiredLRP returns one LRP.
func (c *Client) DesiredLRP(ctx context.Context, guid string) (*models.DesiredLRP, error) {
	var answer models.DesiredLRPResponse
	request := &models.DesiredLRPByProcessGuidRequest{ProcessGuid: guid}
	if err := c.call(ctx, "/v1/desired_lrps/get_by_process_guid.r2", request, &answer); err != nil {
		return nil, err
	}
	return answer.DesiredLrp, failure(answer.Error)
}

// UpdateLRP changes an LRP without restarting its instances.
func (c *Client) UpdateLRP(ctx context.Context, guid string, update *models.DesiredLRPUpdate) error {
	var answer models.DesiredLRPLifecycleResponse
	request := &models.UpdateDesiredLRPRequest{ProcessGuid: guid, Update: update}
	if err := c.call(ctx, "/v1/desired_lrp/update", request, &answer); err != nil {
		return err
	}
	return failure(answer.Error)
}

// RemoveLRP stops an LRP.
func (c *Client) RemoveLRP(ctx context.Context, guid string) error {
	var answer models.DesiredLRPLifecycleResponse
	request := &models.RemoveDesiredLRPRequest{ProcessGuid: guid}
	if err := c.call(ctx, "/v1/desired_lrp/remove", request, &answer); err != nil {
		return err
	}
	return failure(answer.Error)
}

// SchedulingInfos lists the LRPs of a domain, without their secrets.
func (c *Client) SchedulingInfos(ctx context.Context, domain string) ([]*models.DesiredLRPSchedulingInfo, error) {
	var answer models.DesiredLRPSchedulingInfosResponse
	request := &models.DesiredLRPsRequest{Domain: domain}
	if err := c.call(ctx, "/v1/desired_lrp_scheduling_infos/list", request, &answer); err != nil {
		return nil, err
	}
	return answer.DesiredLrpSchedulingInfos, failure(answer.Error)
}

// ActualLRPs lists the instances of an LRP.
func (c *Client) ActualLRPs(ctx context.Context, guid string) ([]*models.ActualLRP, error) {
	var answer models.ActualLRPsResponse
	if err := c.call(ctx, "/v1/actual_lrps/list", &models.ActualLRPsRequest{ProcessGuid: guid}, &answer); err != nil {
		return nil, err
	}
	return answer.ActualLrps, failure(answer.Error)
}

// failure makes a plain nil of an answer's missing error.
func failure(answered *models.Error) error {
	if answered == nil {
		return nil
	}
	return answered
}

// call posts a message, again and again with longer pauses while no answer comes, up to the client's patience.
func (c *Client) call(ctx context.Context, path string, request, answer proto.Message) error {
	body, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request for %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := c.post(ctx, path, body, answer)
		var unanswered *noAnswerError
		if !errors.As(err, &unanswered) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("call %s: %w", path, err)
		}
	}
}

// noAnswerError is a failure to get any answer: the only kind that is retried.
type noAnswerError struct{ cause error }

// Error says why there was no answer.
func (e *noAnswerError) Error() string { return "no answer: " + e.cause.Error() }

// Unwrap returns the cause.
func (e *noAnswerError) Unwrap() error { return e.cause }

func (c *Client) post(ctx context.Context, path string, body []byte, answer proto.Message) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	response, err := c.http.Do(request)
	if err != nil {
		return &noAnswerError{cause: err}
	}
	defer func() { _ = response.Body.Close() }() // it was read to its end, or its failure is known
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &noAnswerError{cause: err}
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("call %s: status %d", path, response.StatusCode)
	case len(content) > maxAnswer:
		return fmt.Errorf("call %s: answer is larger than %d bytes", path, maxAnswer)
	}
	if err := proto.Unmarshal(content, answer); err != nil {
		return fmt.Errorf("decode answer of %s: %w", path, err)
	}
	return nil
}
