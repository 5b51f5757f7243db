package nomad

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	away := errors.New("away")
	for _, row := range []struct {
		name  string
		lists []error
		since time.Duration
		want  string
	}{
		{"is good after a complete list", []error{nil}, 0, ""},
		{"answers from the index while a leader is elected", []error{nil, away, away}, grace / 2, ""},
		{"is out of touch when that lasts", []error{nil, away}, grace, "out of touch with nomad: away"},
		{"is good again after the next list", []error{nil, away, nil}, grace, ""},
		{"counts each loss from its own beginning", []error{nil, away, nil, away}, grace / 2, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := health{ready: make(chan struct{})}
			for _, err := range row.lists {
				h.set(err)
			}
			h.lost = h.lost.Add(-row.since)
			err := h.wait(t.Context())
			switch {
			case row.want == "" && err != nil:
				t.Errorf("wait() = %v", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("wait() = %v, want %q", err, row.want)
			}
		})
	}
}
