package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// A log that was found without a reader is looked at so often, for so long.
const (
	stuckEvery = 100 * time.Millisecond
	stuckWait  = time.Millisecond
)

// maxLine is the longest line that a limit takes for one.
const maxLine = 64 << 10

// relay copies what a task prints into its log, for tasks whose output cannot be the log itself: those with a terminal
// or a limit.
type relay struct {
	from io.Reader
	to   *os.File // does not block
	// limit is nil when there is none.
	limit *budget
	// patience is how long a log without a reader is waited for before what is printed is dropped; zero is for ever.
	patience time.Duration

	stuck bool
	lost  int64
	tried time.Time
}

// run copies until there is no more.
func (r *relay) run() {
	if r.limit == nil {
		buffer := make([]byte, 32<<10)
		for {
			n, err := r.from.Read(buffer)
			r.write(buffer[:n])
			if err != nil { // of a terminal: EIO, once nobody has it open
				return
			}
		}
	}
	lines := bufio.NewReaderSize(r.from, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 && r.limit.take(len(line), time.Now()) {
			r.write(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (r *relay) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if r.stuck && !r.unstick(time.Now()) {
		r.lost += int64(len(p))
		return
	}
	if r.patience > 0 {
		_ = r.to.SetWriteDeadline(time.Now().Add(r.patience))
	}
	if n, err := r.to.Write(p); err != nil {
		r.stuck, r.lost, r.tried = true, int64(len(p)-n), time.Now()
	}
}

// unstick says, once the log has a reader again, what was lost before anything else.
func (r *relay) unstick(now time.Time) bool {
	if now.Sub(r.tried) < stuckEvery {
		return false
	}
	r.tried = now
	_ = r.to.SetWriteDeadline(now.Add(stuckWait))
	if _, err := r.to.WriteString(lostText(r.lost)); err != nil {
		return false
	}
	r.stuck, r.lost = false, 0
	return true
}

func lostText(n int64) string {
	return fmt.Sprintf("%d bytes of output were lost, because nobody read the log\n", n)
}

// budget is how much a task may print, on both streams together: as much as a second's at once.
type budget struct {
	limit int64
	tell  func(string)

	mu           sync.Mutex
	left         float64
	last, told   time.Time
	lines, bytes int64 // dropped
}

func newBudget(limit int64, tell func(string), now time.Time) *budget {
	return &budget{limit: limit, tell: tell, left: float64(limit), last: now}
}

// take says whether a line may be printed. That one may not is told at most once a second, in Diego's words.
func (b *budget) take(n int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+now.Sub(b.last).Seconds()*float64(b.limit), float64(b.limit))
	b.last = now
	if float64(n) <= b.left {
		b.left -= float64(n)
		return true
	}
	b.lines, b.bytes = b.lines+1, b.bytes+int64(n)
	if now.Sub(b.told) >= time.Second {
		b.told = now
		b.tell(fmt.Sprintf("app instance exceeded log rate limit (%d bytes/sec)", b.limit))
	}
	return false
}

// total tells at the end how much was dropped.
func (b *budget) total() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines > 0 {
		b.tell(fmt.Sprintf("the log rate limit dropped %d lines (%d bytes)", b.lines, b.bytes))
	}
}

// throughPipes puts pipes of our own in the place of the logs, from which relays copy no faster than the limit.
func (l *logs) throughPipes(limit int64, ids driver.IDRange) error {
	l.budget = newBudget(limit, l.line, time.Now())
	for _, stream := range []**os.File{&l.stdout, &l.stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("make pipe: %w", err)
		}
		if err := errors.Join(own(write, ids), l.relay(read, *stream)); err != nil {
			return errors.Join(err, write.Close())
		}
		*stream = write
	}
	return nil
}

// copyConsole copies what is printed on the task's terminal into its log.
func (l *logs) copyConsole(console *os.File) error {
	if l.budget != nil { // the pipes have no use then
		to, err := reopen(l.lines, unix.O_WRONLY)
		if err != nil {
			return errors.Join(err, console.Close())
		}
		return l.relay(console, to)
	}
	return l.relay(console, l.stdout)
}

// relay starts a copy. The log is opened anew, so as not to block.
func (l *logs) relay(from, log *os.File) error {
	l.sources = append(l.sources, from)
	to, err := reopen(log, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	l.sinks = append(l.sinks, to, log)
	r := &relay{from: from, to: to, limit: l.budget, patience: l.patience}
	l.copies.Go(r.run)
	return nil
}

// endRelays waits until everything that was printed is in the log, but not for a log that nobody reads.
func (l *logs) endRelays() {
	if len(l.sources) == 0 {
		return
	}
	_ = l.stdout.Close() // the pipes end with this
	_ = l.stderr.Close()
	waitSome(&l.copies, lineWait)
	for _, source := range l.sources {
		_ = source.Close()
	}
	if l.budget != nil {
		l.budget.total()
	}
	for _, sink := range l.sinks {
		_ = sink.Close()
	}
}
