package quota

import (
	"fmt"
	"testing"
	"time"
)

func TestAmount(t *testing.T) {
	limit := Amount{Bytes: 10 << 30, Inodes: 1000}
	for _, c := range []struct {
		used     Amount
		exceeds  bool
		near     bool
		sentence string
	}{
		{Amount{}, false, false, "0 B of 10 GiB"},
		{Amount{Bytes: 10 << 30, Inodes: 1000}, false, true, "10 GiB of 10 GiB"},
		{Amount{Bytes: 10<<30 + 1<<27}, true, true, "10.1 GiB of 10 GiB"},
		{Amount{Bytes: 1 << 30, Inodes: 1001}, true, true, "1001 of 1000 files"},
		{Amount{Bytes: 8 << 30, Inodes: 1}, false, true, "8 GiB of 10 GiB"},
		{Amount{Bytes: 1536, Inodes: 0}, false, false, "1.5 KiB of 10 GiB"},
	} {
		if got := fmt.Sprint(c.used.Exceeds(limit), c.used.reaches(nearPercent, limit), c.used.Of(limit)); got != fmt.Sprint(c.exceeds, c.near, c.sentence) {
			t.Errorf("%+v: %s", c.used, got)
		}
	}
	if (Amount{Bytes: 1 << 60, Inodes: 1 << 60}).Exceeds(Amount{}) {
		t.Error("no limit is exceeded")
	}
}

// TestPace tells, for a limit of 1 GiB and a file system that changes, when is measured.
func TestPace(t *testing.T) {
	const mib = 1 << 20
	limit := Amount{Bytes: 1024 * mib, Inodes: 1000}
	base := Amount{Bytes: 100_000 * mib, Inodes: 100_000}
	began := time.Unix(1000, 0)
	for _, c := range []struct {
		name  string
		cost  time.Duration
		used  Amount
		after time.Duration
		gone  Amount
		due   bool
	}{
		{"nothing changes", time.Millisecond, Amount{}, 59 * time.Second, Amount{}, false},
		{"nothing changes for long", time.Millisecond, Amount{}, 61 * time.Second, Amount{}, true},
		{"somebody writes a little", time.Millisecond, Amount{}, 9 * time.Second, Amount{Bytes: mib}, false},
		{"somebody writes a little for long", time.Millisecond, Amount{}, 11 * time.Second, Amount{Bytes: mib}, true},
		{"somebody writes a little and measuring is dear", time.Second, Amount{}, 11 * time.Second, Amount{Bytes: mib}, false},
		{"somebody writes half of the room", time.Millisecond, Amount{}, time.Second, Amount{Bytes: 512 * mib}, true},
		{"somebody writes half of little room", time.Millisecond, Amount{Bytes: 1000 * mib}, time.Second, Amount{Bytes: 12 * mib}, true},
		{"somebody makes half of the files", time.Millisecond, Amount{}, time.Second, Amount{Inodes: 500}, true},
		{"somebody writes half of the room and measuring is dear", time.Second, Amount{}, 2 * time.Second, Amount{Bytes: 512 * mib}, false},
		{"the same later", time.Second, Amount{}, 3 * time.Second, Amount{Bytes: 512 * mib}, true},
		{"somebody frees space", time.Millisecond, Amount{}, time.Second, Amount{Bytes: -512 * mib}, false},
	} {
		p := pace{limit: limit}
		if !p.due(began, base) {
			t.Errorf("%s: the first look is not followed by a measurement", c.name)
		}
		p.measured(began.Add(-c.cost), c.cost, base, c.used)
		free := Amount{Bytes: base.Bytes - c.gone.Bytes, Inodes: base.Inodes - c.gone.Inodes}
		if got := p.due(began.Add(c.after), free); got != c.due {
			t.Errorf("%s: due is %v", c.name, got)
		}
		if wait := p.wait(); wait < fastest || wait > slowest {
			t.Errorf("%s: waits %s", c.name, wait)
		}
	}
}
