package server

import (
	"encoding/json"
	"net/http"

	"code.cloudfoundry.org/bbs/models"
)

// completion reads a Task's callback as strictly as Cloud Controller does.
func completion(w http.ResponseWriter, r *http.Request) (*models.TaskCallbackResponse, error) {
	text, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	var required struct {
		TaskGUID      *string `json:"task_guid"`
		Failed        *bool   `json:"failed"`
		FailureReason *string `json:"failure_reason"`
		CreatedAt     *int64  `json:"created_at"`
	}
	var callback models.TaskCallbackResponse
	if err := json.Unmarshal(text, &required); err != nil {
		return nil, refuse("callback is not readable: %v", err)
	}
	if required.TaskGUID == nil || required.Failed == nil || required.FailureReason == nil || required.CreatedAt == nil {
		return nil, refuse("callback lacks one of task_guid, failed, failure_reason, created_at")
	}
	if err := json.Unmarshal(text, &callback); err != nil {
		return nil, refuse("callback is not readable: %v", err)
	}
	if guid := r.PathValue("guid"); callback.TaskGuid != guid {
		return nil, refuse("callback of task %s came for %s", callback.TaskGuid, guid)
	}
	return &callback, nil
}

// outcome is the state that a callback leaves behind.
func outcome(callback *models.TaskCallbackResponse) string {
	if callback.Failed {
		return StateFailed
	}
	return StateSucceeded
}

func (s *Server) buildCompleted(w http.ResponseWriter, r *http.Request) error {
	callback, err := completion(w, r)
	if err != nil {
		return err
	}
	held := false
	err = change(s, kindBuilds, callback.TaskGuid, func(b *Build) error {
		if b.State != StateRunning {
			return refuse("build %s has already %s", b.GUID, b.State)
		}
		if !callback.Failed && !b.Docker && b.DropletSHA256 == "" {
			callback.Failed, callback.FailureReason = true, "no droplet was uploaded"
		}
		b.State, b.Completion, b.UpdatedAt = outcome(callback), callback, now()
		held = b.Hold
		return nil
	})
	if err != nil {
		return err
	}
	s.holds.wait(r.Context(), held, callback.TaskGuid)
	return answerJSON(w, http.StatusOK, struct{}{})
}

func (s *Server) taskCompleted(w http.ResponseWriter, r *http.Request) error {
	callback, err := completion(w, r)
	if err != nil {
		return err
	}
	held := false
	err = change(s, kindTasks, callback.TaskGuid, func(t *Task) error {
		if t.State != StateRunning {
			return refuse("task %s has already %s", t.GUID, t.State)
		}
		t.State, t.Completion, t.UpdatedAt = outcome(callback), callback, now()
		held = t.Hold
		return nil
	})
	if err != nil {
		return err
	}
	s.holds.wait(r.Context(), held, callback.TaskGuid)
	return answerJSON(w, http.StatusOK, struct{}{})
}

// instanceEvent takes note of what happened to an instance of an app.
func (s *Server) instanceEvent(what string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		text, err := readBody(w, r)
		if err != nil {
			return err
		}
		var event struct {
			Instance        string `json:"instance"`
			Index           int    `json:"index"`
			ExitDescription string `json:"exit_description"`
			CrashCount      int    `json:"crash_count"`
		}
		if err := json.Unmarshal(text, &event); err != nil {
			return refuse("event is not readable: %v", err)
		}
		s.log.Info("instance "+what, "process", r.PathValue("guid"), "index", event.Index, "instance", event.Instance,
			"exit_description", event.ExitDescription, "crash_count", event.CrashCount)
		return answerJSON(w, http.StatusOK, struct{}{})
	}
}
