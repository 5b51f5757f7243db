// Package cc makes the calls that the bridge owes to Cloud Controller.
//
// A Client tells the end of a Task to the callback URL that came with it. What the answer means is Diego's rule, on
// which Cloud Controllers rely: 503 and 504 ask to be called again; any other answer, be it 200 or 400 or 500, is the
// last word about the Task. A connection that fails is no answer at all.
//
// Callback URLs can hold credentials, and results can hold secrets: no error of this package repeats either.
package cc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"code.cloudfoundry.org/bbs/models"
)

const (
	// callTimeout bounds one call. Cloud Controller saves a build's droplet within the call.
	callTimeout = 10 * time.Second
	// maxAnswer is how much of an answer is read, so that the connection can be used again.
	maxAnswer = 64 << 10
)

// Client calls Cloud Controller.
type Client struct {
	http *http.Client
}

// NewClient returns a Client that shows the certificate in config to those who ask for one, see bridge/mtls.
// Proxies of the environment are not used: the platform's own calls stay inside the platform.
func NewClient(config *tls.Config) *Client {
	return &Client{http: &http.Client{
		Timeout: callTimeout,
		Transport: &http.Transport{
			TLSClientConfig:     config,
			TLSHandshakeTimeout: callTimeout / 2,
			DialContext:         (&net.Dialer{Timeout: callTimeout / 2}).DialContext,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     90 * time.Second,
		},
		// A result goes where the Task said and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// TaskCompleted posts the end of a Task to its callback URL. Answered says that Cloud Controller has spoken and must
// not be called again; an error besides tells that it did not like what it heard. Without an answer there is always
// an error, and the call is to be made again later.
func (c *Client) TaskCompleted(ctx context.Context, task *models.Task) (answered bool, err error) {
	body, err := json.Marshal(models.TaskCallbackResponse{
		TaskGuid:      task.TaskGuid,
		Failed:        task.Failed,
		FailureReason: task.FailureReason,
		Result:        task.Result,
		Annotation:    task.Annotation,
		CreatedAt:     task.CreatedAt,
	})
	if err != nil {
		return true, fmt.Errorf("encode the end of task %s: %w", task.TaskGuid, err)
	}
	request, err := newRequest(ctx, task.CompletionCallbackUrl, body)
	if err != nil {
		return true, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return false, fmt.Errorf("call %s: %w", request.URL.Host, withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
	switch code := response.StatusCode; {
	case code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		return false, fmt.Errorf("call %s: answered %s", request.URL.Host, response.Status)
	case code >= http.StatusMultipleChoices:
		return true, fmt.Errorf("call %s: answered %s", request.URL.Host, response.Status)
	default:
		return true, nil
	}
}

func newRequest(ctx context.Context, callback string, body []byte) (*http.Request, error) {
	target, err := url.Parse(callback)
	if err != nil || target.Host == "" || (target.Scheme != "https" && target.Scheme != "http") {
		return nil, errors.New("the callback is no http or https URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, withoutURL(err)
	}
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}

// withoutURL takes the URL, and what it holds, out of an error of net/http.
func withoutURL(err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		return inURL.Err
	}
	return err
}
