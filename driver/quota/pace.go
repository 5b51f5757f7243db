package quota

import "time"

// How often is measured. A look at how much the file system has free costs nothing and is taken each few hundred
// milliseconds to seconds; only what it says leads to a walk.
const (
	// fastest and slowest bound the time between two looks.
	fastest = 200 * time.Millisecond
	slowest = 2 * time.Second
	// writer is a fast writer's bytes per second.
	writer = 512 << 20
	// regular is between two walks while the file system changes, idle while it does not: what the task writes may be what
	// somebody else has just removed.
	regular = 10 * time.Second
	idle    = time.Minute
	// enforcedEvery is between two looks at what the kernel enforces.
	enforcedEvery = 5 * time.Second
	// share and urgentShare are how many times as long as it took to measure is waited before the next time.
	share       = 19
	urgentShare = 3
)

// pace decides when to measure.
type pace struct {
	limit    Amount
	enforced bool // nothing but what the kernel enforces is measured

	once  bool
	at    time.Time     // of the last walk
	cost  time.Duration // of it
	free  Amount        // before it
	used  Amount        // found by it
	rate  float64       // bytes per second by which the file system fills
	last  Amount        // free at the last look
	lastT time.Time
}

// wait is how long until the next look.
func (p *pace) wait() time.Duration {
	switch {
	case p.enforced:
		return enforcedEvery
	case !p.once:
		return fastest
	}
	room := p.used.room(p.limit)
	// As long as a fast writer needs for a part of the room, but nothing writes fast for no reason.
	next := min(max(seconds(float64(room.Bytes)/writer), time.Second), slowest)
	if p.rate > 0 {
		next = min(next, seconds(float64(room.Bytes)/p.rate/4))
	}
	return max(next, fastest)
}

func seconds(s float64) time.Duration {
	if s > slowest.Seconds() {
		return slowest
	}
	return time.Duration(s * float64(time.Second))
}

// due says whether a look at what is free is reason to measure.
func (p *pace) due(now time.Time, free Amount) bool {
	if p.enforced || !p.once {
		p.last, p.lastT = free, now
		return true
	}
	if passed := now.Sub(p.lastT).Seconds(); passed > 0 {
		p.rate = max(float64(p.last.Bytes-free.Bytes)/passed, 0)
	}
	p.last, p.lastT = free, now
	room, since := p.used.room(p.limit), now.Sub(p.at)
	gone := Amount{Bytes: p.free.Bytes - free.Bytes, Inodes: p.free.Inodes - free.Inodes}
	switch {
	case gone.Bytes > 0 && gone.Bytes >= room.Bytes/2, gone.Inodes > 0 && gone.Inodes >= room.Inodes/2:
		return since >= urgentShare*p.cost
	case gone != Amount{}:
		return since >= max(share*p.cost, regular)
	}
	return since >= max(share*p.cost, idle)
}

func (p *pace) measured(began time.Time, cost time.Duration, free, used Amount) {
	p.once, p.at, p.cost, p.free, p.used = true, began.Add(cost), cost, free, used
}
