package cc

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/bridge/mtls"
)

// controller is a Cloud Controller behind mutual TLS that answers with one status and keeps what it heard.
type controller struct {
	server *httptest.Server
	client *Client
	status int
	header http.Header
	body   []byte
	path   string
}

func newController(t *testing.T, status int) *controller {
	t.Helper()
	authority, err := mtls.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(t.TempDir(), "cc", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	identity, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := &controller{status: status, client: NewClient(identity.Client())}
	c.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.header, c.path = r.Header, r.URL.RequestURI()
		c.body, _ = io.ReadAll(r.Body)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(c.status)
	}))
	c.server.TLS = identity.Server()
	c.server.StartTLS()
	t.Cleanup(c.server.Close)
	return c
}

func finished(callback string) *models.Task {
	return &models.Task{
		TaskGuid: "guid", CreatedAt: 1795167516999770191, Result: `{"process_types":{}}`,
		TaskDefinition: &models.TaskDefinition{CompletionCallbackUrl: callback},
	}
}

func TestTaskCompleted_sendsWhatCloudControllerReads(t *testing.T) {
	c := newController(t, http.StatusOK)
	answered, err := c.client.TaskCompleted(t.Context(), finished(c.server.URL+"/internal/v3/staging/guid/build_completed?start=false"))
	if !answered || err != nil {
		t.Fatalf("answered %v, %v", answered, err)
	}
	if want := "/internal/v3/staging/guid/build_completed?start=false"; c.path != want {
		t.Errorf("called %q, want %q", c.path, want)
	}
	if kind := c.header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("Content-Type %q", kind)
	}
	decoder := json.NewDecoder(strings.NewReader(string(c.body)))
	decoder.UseNumber()
	var got map[string]any
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"task_guid": "guid", "failed": false, "failure_reason": "", // The reason is a string even when there is none.
		"result": `{"process_types":{}}`, "created_at": json.Number("1795167516999770191"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
}

func TestTaskCompleted_usesTheURLsCredentials(t *testing.T) {
	c := newController(t, http.StatusOK)
	callback := strings.Replace(c.server.URL, "https://", "https://internal_user:secret@", 1)
	if _, err := c.client.TaskCompleted(t.Context(), finished(callback)); err != nil {
		t.Fatal(err)
	}
	if got := c.header.Get("Authorization"); !strings.HasPrefix(got, "Basic ") {
		t.Errorf("Authorization %q, want basic credentials", got)
	}
}

func TestTaskCompleted_knowsTheLastWord(t *testing.T) {
	for _, row := range []struct {
		promise  string
		status   int
		answered bool
		liked    bool
	}{
		{"200 is success", 200, true, true},
		{"404 is the last word", 404, true, false},
		{"400 is the last word", 400, true, false},
		{"500 is the last word", 500, true, false},
		{"a redirect is not followed", 307, true, false},
		{"503 asks to come again", 503, false, false},
		{"504 asks to come again", 504, false, false},
	} {
		t.Run(row.promise, func(t *testing.T) {
			c := newController(t, row.status)
			answered, err := c.client.TaskCompleted(t.Context(), finished(c.server.URL))
			if answered != row.answered || (err == nil) != row.liked {
				t.Errorf("answered %v, error %v", answered, err)
			}
			if c.path == "/elsewhere" {
				t.Error("the result went elsewhere")
			}
		})
	}
}

func TestTaskCompleted_comesAgainWhenNobodyListens(t *testing.T) {
	c := newController(t, http.StatusOK)
	callback := strings.Replace(c.server.URL, "https://", "https://user:canary@", 1) + "?token=canary"
	c.server.Close()
	answered, err := c.client.TaskCompleted(t.Context(), finished(callback))
	if answered || err == nil {
		t.Fatalf("answered %v, error %v", answered, err)
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error tells a secret: %v", err)
	}
}

func TestTaskCompleted_givesUpOnWhatIsNoURL(t *testing.T) {
	for _, callback := range []string{"ftp://canary@cc/", "://canary", "https:///canary", "canary"} {
		answered, err := NewClient(nil).TaskCompleted(t.Context(), finished(callback))
		if !answered || err == nil {
			t.Errorf("%q: answered %v, error %v", callback, answered, err)
			continue
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}
