package task

import (
	"testing"
	"time"

	"drover/driver"
	"drover/driver/shim"
)

func TestEvent_tellsWhereTheTimeWent(t *testing.T) {
	began := time.Unix(1000, 0)
	task := &Task{Record: Record{TaskID: "a/b/c", InstanceGUID: "guid", StartedAt: began}}
	started := shim.Event{Phase: driver.PhaseStarted, Time: began.Add(31 * time.Millisecond), Annotations: map[string]string{
		driver.AnnotationMountMillis: "3", driver.AnnotationCreateMillis: "18", driver.AnnotationMillis: "0",
	}}
	got := task.event(started)
	if got.Message != "Container started in 31 ms: mount 3 ms, create 18 ms" || got.Annotations[driver.AnnotationMillis] != "31" {
		t.Errorf("got %q, %v", got.Message, got.Annotations)
	}
	t.Run("also of a shim that does not say", func(t *testing.T) {
		started.Annotations = nil
		if got := task.event(started); got.Message != "Container started in 31 ms" {
			t.Errorf("got %q", got.Message)
		}
	})
}
