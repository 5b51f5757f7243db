package task

import (
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"drover/driver"
)

func TestIDPool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state[1]*") // names mean nothing
	ids := IDs{HostBase: 1 << 20, Size: 1 << 16, Count: 2}
	pool, err := openIDPool(dir, ids)
	if err != nil {
		t.Fatal(err)
	}
	acquire := func(p *idPool, alloc, container string) driver.IDRange {
		t.Helper()
		got, err := p.Acquire(alloc, container)
		if err != nil {
			t.Fatalf("acquire %s for %s: %v", container, alloc, err)
		}
		return got
	}
	a := acquire(pool, "a", "a-web")
	if a == ids.Stored() {
		t.Errorf("a container got the range that the store uses: %+v", a)
	}
	if got := acquire(pool, "a", "a-log"); got != a {
		t.Errorf("tasks of one allocation got different ranges: %+v and %+v", a, got)
	}
	b := acquire(pool, "b", "b-web")
	if a.Host < b.Host+b.Size && b.Host < a.Host+a.Size {
		t.Errorf("ranges of two allocations overlap: %+v and %+v", a, b)
	}

	again, err := openIDPool(dir, ids)
	if err != nil {
		t.Fatal(err)
	}
	if got := acquire(again, "a", "a-web"); got != a {
		t.Errorf("a new process gave allocation a another range: %+v, was %+v", got, a)
	}
	if _, err := again.Acquire("c", "c-web"); !errors.Is(err, errPoolEmpty) {
		t.Errorf("third allocation of a pool of two: error %v, want %v", err, errPoolEmpty)
	}
	for _, container := range []string{"a-web", "a-web", "never-heard-of"} {
		if err := again.Release(container); err != nil {
			t.Errorf("release %s: %v", container, err)
		}
	}
	if _, err := again.Acquire("c", "c-web"); !errors.Is(err, errPoolEmpty) {
		t.Errorf("range of a was given away while its task a-log lives: error %v", err)
	}
	if err := again.Release("a-log"); err != nil {
		t.Fatal(err)
	}
	if got := acquire(again, "c", "c-web"); got != a {
		t.Errorf("freed range is not given again: got %+v, want %+v", got, a)
	}
}

func TestIDPool_afterAChangeOfIDs(t *testing.T) {
	dir := t.TempDir()
	live := map[string]driver.IDRange{}
	for _, ids := range []IDs{
		{HostBase: 1 << 20, Size: 1 << 16, Count: 8}, {HostBase: 1<<20 + 1<<15, Size: 1 << 16, Count: 8},
		{HostBase: 1 << 19, Size: 1 << 17, Count: 9}, {HostBase: 1 << 20, Size: 1 << 16, Count: 8},
	} {
		pool, err := openIDPool(dir, ids)
		if err != nil {
			t.Fatal(err)
		}
		for _, alloc := range []string{"a", "n" + strconv.Itoa(len(live)), "m" + strconv.Itoa(len(live))} {
			got, err := pool.Acquire(alloc, alloc+"-web")
			if err != nil {
				t.Fatal(err)
			}
			if was, ok := live[alloc]; ok && got != was {
				t.Errorf("%+v: the range of %s is %+v, was %+v", ids, alloc, got, was)
			}
			if other := overlapping(live, alloc, got); other != "" {
				t.Errorf("%+v: %+v of %s overlaps that of %s", ids, got, alloc, other)
			}
			live[alloc] = got
		}
	}
	pool, err := openIDPool(dir, IDs{HostBase: 1 << 20, Size: 1 << 16, Count: 8})
	if err != nil {
		t.Fatal(err)
	}
	for name := range live {
		if err := pool.Release(name + "-web"); err != nil {
			t.Fatal(err)
		}
	}
	allFree(t, pool)
}

func allFree(t *testing.T, pool *idPool) {
	t.Helper()
	if taken, _, err := pool.list("x"); err != nil || len(taken) > 0 {
		t.Errorf("slots %v are taken for ever, %v", taken, err)
	}
}

// overlapping names another allocation that has some of the ids.
func overlapping(live map[string]driver.IDRange, alloc string, ids driver.IDRange) string {
	for other, r := range live {
		if other != alloc && ids.Host < r.Host+r.Size && r.Host < ids.Host+ids.Size {
			return other
		}
	}
	return ""
}

// Each goroutine has a pool of its own, as each of several plugins would.
func TestIDPool_manyProcesses(t *testing.T) {
	const count = 24
	dir := t.TempDir()
	ids := IDs{HostBase: 1 << 20, Size: 1 << 16, Count: count}
	got := make([]driver.IDRange, count)
	var all sync.WaitGroup
	for n := range count {
		all.Go(func() {
			pool, err := openIDPool(dir, ids)
			if err == nil {
				got[n], err = pool.Acquire("alloc"+strconv.Itoa(n), "container"+strconv.Itoa(n))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[driver.IDRange]bool{}
	for _, r := range got {
		if seen[r] {
			t.Errorf("%+v was given twice", r)
		}
		seen[r] = true
	}
}
