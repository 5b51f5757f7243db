package bbs

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge/bridgetest"
)

// FuzzHandler sends anything to everything. Each answer is a message, and each message can be read.
func FuzzHandler(f *testing.F) {
	seed := func(m message) {
		data, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	seed(&models.DesireLRPRequest{DesiredLrp: bridgetest.LRP("one")})
	seed(&models.DesireTaskRequest{TaskGuid: "one", Domain: "cf-tasks", TaskDefinition: bridgetest.Task()})
	seed(&models.UpdateDesiredLRPRequest{ProcessGuid: "one", Update: &models.DesiredLRPUpdate{Routes: &models.Routes{}}})
	seed(&models.ActualLRPsRequest{Domain: "cf-apps"})
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		handler := Handler(bridgetest.NewMemory(time.Now), slog.New(slog.DiscardHandler))
		for range 2 { // What the first round has made, the second reads.
			for _, route := range Routes() {
				if route.State != Served {
					continue
				}
				recorder := httptest.NewRecorder()
				request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, route.Path, bytes.NewReader(body))
				handler.ServeHTTP(recorder, request)
				if recorder.Code != http.StatusOK {
					t.Fatalf("%s: status %d", route.Name, recorder.Code)
				}
				if err := new(models.TaskLifecycleResponse).Unmarshal(recorder.Body.Bytes()); err != nil && route.Name != pingRoute {
					t.Fatalf("%s: %v", route.Name, err)
				}
			}
		}
	})
}
