package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
	"drover/bridge/bridgetest"
)

var errDown = errors.New("connection refused")

// client is who wants to be told. Its fields may be changed while nothing moves.
type client struct {
	mu       sync.Mutex
	runtime  *bridgetest.Memory
	answered bool
	err      error
	hold     chan struct{} // when set, a call waits for it
	calls    []time.Time
	told     map[string]int
	states   map[models.Task_State]int
	now, max int
}

func newClient(runtime *bridgetest.Memory) *client {
	return &client{runtime: runtime, answered: true, told: map[string]int{}, states: map[models.Task_State]int{}}
}

func (c *client) send(ctx context.Context, task *models.Task) (bool, error) {
	current, err := c.runtime.Task(ctx, task.TaskGuid)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	c.calls = append(c.calls, time.Now())
	c.told[task.TaskGuid]++
	c.states[current.State]++
	c.now++
	c.max = max(c.max, c.now)
	hold, answered, failure := c.hold, c.answered, c.err
	c.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			answered, failure = false, ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	return answered, failure
}

// count says how often the client was called.
func (c *client) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// become sets what the client answers from now on.
func (c *client) become(answered bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered, c.err = answered, err
}

// run starts a Notifier and returns what stops it and waits for its end.
func run(t *testing.T, tasks bridge.Tasks, send Send) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		New(tasks, send, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// end desires a Task and completes it.
func end(t *testing.T, runtime *bridgetest.Memory, guid, callback string) {
	t.Helper()
	task := bridgetest.Task()
	task.CompletionCallbackUrl = callback
	if err := runtime.DesireTask(t.Context(), guid, "cf-tasks", task); err != nil {
		t.Fatal(err)
	}
	runtime.CompleteTask(t, guid, "", "result")
}

func left(t *testing.T, runtime *bridgetest.Memory) int {
	t.Helper()
	tasks, err := runtime.Tasks(t.Context(), bridge.TaskFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// pass lets time go by until nothing moves.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestNotifier_tellsOnceAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		end(t, runtime, "before", "https://cc/before")
		defer run(t, runtime, c.send)()
		synctest.Wait()
		end(t, runtime, "after", "https://cc/after")
		synctest.Wait()
		if c.told["before"] != 1 || c.told["after"] != 1 || left(t, runtime) != 0 {
			t.Errorf("at once: told %v, %d tasks left", c.told, left(t, runtime))
		}
		pass(10 * time.Minute)
		if c.count() != 2 {
			t.Errorf("%d calls in the end, want 2", c.count())
		}
		if c.states[models.Task_Resolving] != 2 {
			t.Errorf("states while being told: %v, want all Resolving", c.states)
		}
	})
}

func TestNotifier_takesAnAnswerForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		c.become(true, errors.New("404 Not Found"))
		defer run(t, runtime, c.send)()
		end(t, runtime, "one", "https://cc/one")
		pass(5 * time.Minute)
		if c.count() != 1 || left(t, runtime) != 0 {
			t.Errorf("%d calls, %d tasks left; want 1 and none", c.count(), left(t, runtime))
		}
	})
}

func TestNotifier_comesAgainUntilAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		c.become(false, errDown)
		defer run(t, runtime, c.send)()
		end(t, runtime, "one", "https://cc/one")
		pass(time.Hour)
		c.mu.Lock()
		calls := slices.Clone(c.calls)
		c.mu.Unlock()
		for i := 1; i < len(calls); i++ {
			pause := calls[i].Sub(calls[i-1])
			low := min(firstBackoff<<min(i-1, 5), lastBackoff) / 2
			if pause < low || pause > 2*low {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, low, 2*low)
			}
		}
		if n := len(calls); n < 120 || n > 260 {
			t.Errorf("%d calls in an hour", n)
		}
		c.become(true, nil)
		pass(lastBackoff)
		if left(t, runtime) != 0 {
			t.Error("the task is left although the client answers again")
		}
	})
}

func TestNotifier_givesUpAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		c.become(false, errDown)
		defer run(t, runtime, c.send)()
		end(t, runtime, "one", "https://cc/one")
		pass(Patience - time.Second)
		if left(t, runtime) != 1 {
			t.Error("gave up too early")
		}
		pass(lastBackoff + 2*time.Second)
		if left(t, runtime) != 0 {
			t.Error("did not give up")
		}
	})
}

func TestNotifier_leavesWhatNobodyAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		defer run(t, runtime, c.send)()
		end(t, runtime, "one", "")
		pass(Unasked - time.Second)
		if left(t, runtime) != 1 {
			t.Error("deleted before anyone could look")
		}
		pass(2 * time.Second)
		if left(t, runtime) != 0 || c.count() != 0 {
			t.Errorf("%d tasks left, %d calls; want none", left(t, runtime), c.count())
		}
	})
}

func TestNotifier_takesOverFromOneThatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		end(t, runtime, "one", "https://cc/one")
		if err := runtime.ResolvingTask(t.Context(), "one"); err != nil { // Claimed, and never heard of again.
			t.Fatal(err)
		}
		c := newClient(runtime)
		defer run(t, runtime, c.send)()
		pass(StaleClaim - time.Second)
		if c.count() != 0 {
			t.Error("took a result that another had just claimed")
		}
		pass(5 * time.Second)
		if c.count() != 1 || left(t, runtime) != 0 {
			t.Errorf("%d calls, %d tasks left; want 1 and none", c.count(), left(t, runtime))
		}
	})
}

func TestNotifier_callsFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		c.hold = make(chan struct{})
		for i := range 5 * workers {
			end(t, runtime, fmt.Sprintf("task-%d", i), "https://cc/")
		}
		defer run(t, runtime, c.send)()
		synctest.Wait()
		if c.max != workers {
			t.Errorf("%d calls at a time, want %d", c.max, workers)
		}
		close(c.hold)
		pass(time.Second)
		if c.max != workers || left(t, runtime) != 0 {
			t.Errorf("at most %d calls at a time, %d tasks left", c.max, left(t, runtime))
		}
		for guid, times := range c.told {
			if times != 1 {
				t.Errorf("%s was told %d times", guid, times)
			}
		}
	})
}

func TestNotifier_finishesWhatItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		c.hold = make(chan struct{})
		stop := run(t, runtime, c.send)
		end(t, runtime, "one", "https://cc/one")
		synctest.Wait()
		go func() {
			<-time.After(time.Second)
			close(c.hold)
		}()
		stop()
		if left(t, runtime) != 0 {
			t.Error("a result that was received would be sent again")
		}
	})
}

// faulty fails to list or to delete for as long as it is told to, and takes its time.
type faulty struct {
	*bridgetest.Memory
	mu           sync.Mutex
	list, delete error
	slow         time.Duration
	lists        int
}

func (f *faulty) fail(list, del error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list, f.delete = list, del
}

func (f *faulty) Tasks(ctx context.Context, filter bridge.TaskFilter) ([]*models.Task, error) {
	f.mu.Lock()
	f.lists++
	err, slow := f.list, f.slow
	f.mu.Unlock()
	<-time.After(slow)
	if err != nil {
		return nil, err
	}
	return f.Memory.Tasks(ctx, filter)
}

func (f *faulty) DeleteTask(ctx context.Context, guid string) error {
	f.mu.Lock()
	err := f.delete
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Memory.DeleteTask(ctx, guid)
}

func TestNotifier_tellsOnceThoughItCannotDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		tasks := &faulty{Memory: runtime, delete: errDown}
		defer run(t, tasks, c.send)()
		end(t, runtime, "one", "https://cc/one")
		pass(5 * time.Minute)
		if c.count() != 1 || left(t, runtime) != 1 {
			t.Errorf("%d calls, %d tasks left; want 1 and 1", c.count(), left(t, runtime))
		}
		tasks.fail(nil, nil)
		pass(time.Minute)
		if c.count() != 1 || left(t, runtime) != 0 {
			t.Errorf("%d calls, %d tasks left in the end; want 1 and none", c.count(), left(t, runtime))
		}
	})
}

func TestNotifier_listsAgainAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		tasks := &faulty{Memory: runtime, list: errDown}
		defer run(t, tasks, c.send)()
		end(t, runtime, "one", "https://cc/one")
		pass(time.Minute)
		tasks.fail(nil, nil)
		pass(lastBackoff)
		if c.count() != 1 || left(t, runtime) != 0 {
			t.Errorf("%d calls, %d tasks left; want 1 and none", c.count(), left(t, runtime))
		}
	})
}

func TestNotifier_restsWhenListsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := bridgetest.NewMemory(time.Now)
		c := newClient(runtime)
		tasks := &faulty{Memory: runtime, slow: 100 * time.Millisecond}
		stop := run(t, tasks, c.send)
		for i := range 1000 { // A hint every 10 ms.
			end(t, runtime, fmt.Sprintf("task-%d", i), "https://cc/")
			pass(10 * time.Millisecond)
		}
		pass(time.Second)
		stop()
		if tasks.lists > 25 {
			t.Errorf("%d lists of 100 ms in 11 s of hints, want at most a fifth of the time", tasks.lists)
		}
		if c.count() != 1000 || left(t, runtime) != 0 {
			t.Errorf("%d calls, %d tasks left; want 1000 and none", c.count(), left(t, runtime))
		}
	})
}
