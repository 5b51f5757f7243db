package server

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// holdFor is how long a completion is held at most; callers give us ten seconds.
const holdFor = 3 * time.Second

// holds lets those who read a Task's log finish before the BBS hears that the Task may be forgotten.
type holds struct {
	mutex    sync.Mutex
	released map[string]chan struct{}
}

// of is closed once the guid has been released.
func (h *holds) of(guid string) chan struct{} {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.released == nil {
		h.released = map[string]chan struct{}{}
	}
	if h.released[guid] == nil {
		h.released[guid] = make(chan struct{})
	}
	return h.released[guid]
}

// wait returns when the guid was released, or has been held for long enough.
func (h *holds) wait(ctx context.Context, held bool, guid string) {
	if !held {
		return
	}
	enough := time.NewTimer(holdFor)
	defer enough.Stop()
	select {
	case <-h.of(guid):
	case <-enough.C:
	case <-ctx.Done():
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	delete(h.released, guid)
}

// release answers a held completion.
func (s *Server) release(w http.ResponseWriter, r *http.Request) error {
	released := s.holds.of(r.PathValue("guid"))
	s.holds.mutex.Lock()
	defer s.holds.mutex.Unlock()
	select {
	case <-released: // a second time
	default:
		close(released)
	}
	return answerJSON(w, http.StatusOK, struct{}{})
}
