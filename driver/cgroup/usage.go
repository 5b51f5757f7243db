package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a group has used. A field that the host does not account for is zero.
type Usage struct {
	// CPU times since the group was made.
	CPUTotal  time.Duration `json:"cpu_total"`
	CPUUser   time.Duration `json:"cpu_user"`
	CPUSystem time.Duration `json:"cpu_system"`
	// ThrottledPeriods and ThrottledTime tell how often and how long a CPU quota held the group back.
	ThrottledPeriods uint64        `json:"throttled_periods"`
	ThrottledTime    time.Duration `json:"throttled_time"`
	// MemoryUsage is everything charged to the group, page cache included, in bytes.
	MemoryUsage uint64 `json:"memory_usage"`
	// MemoryMax is the highest MemoryUsage seen.
	MemoryMax uint64 `json:"memory_max"`
	// MemoryRSS is anonymous memory, MemoryCache page cache, MemorySwap swap.
	MemoryRSS   uint64 `json:"memory_rss"`
	MemoryCache uint64 `json:"memory_cache"`
	MemorySwap  uint64 `json:"memory_swap"`
	// MemoryLimit is the hard limit; 0 when there is none.
	MemoryLimit uint64 `json:"memory_limit"`
	// PIDs is the number of processes and threads now.
	PIDs uint64 `json:"pids"`
	// OOMKills counts the processes that the kernel killed for want of memory.
	OOMKills uint64 `json:"oom_kills"`
}

// noLimit is from where on a v1 memory limit means none.
const noLimit = 1 << 62

// Usage reads what the group has used.
func (g Group) Usage() (Usage, error) {
	if len(g.Dirs()) == 0 {
		return Usage{}, fmt.Errorf("usage of cgroup %s: %w", g.path, fs.ErrNotExist)
	}
	if g.v2 {
		return usageV2(os.DirFS(g.dir("")))
	}
	return usageV1(func(controller string) fs.FS { return os.DirFS(g.dir(controller)) })
}

// OOMKills counts the processes of the group that the kernel killed for want of memory. It is exact once they ended.
func (g Group) OOMKills() (uint64, error) {
	if g.v2 {
		return field(os.DirFS(g.dir("")), "memory.events", "oom_kill")
	}
	return field(os.DirFS(g.dir("memory")), "memory.oom_control", "oom_kill")
}

func usageV2(dir fs.FS) (Usage, error) {
	r := reader{}
	cpu, mem := r.flat(dir, "cpu.stat"), r.flat(dir, "memory.stat")
	u := Usage{
		CPUTotal:         micros(cpu["usage_usec"]),
		CPUUser:          micros(cpu["user_usec"]),
		CPUSystem:        micros(cpu["system_usec"]),
		ThrottledPeriods: cpu["nr_throttled"],
		ThrottledTime:    micros(cpu["throttled_usec"]),
		MemoryUsage:      r.number(dir, "memory.current"),
		MemoryMax:        r.number(dir, "memory.peak"),
		MemoryRSS:        mem["anon"],
		MemoryCache:      mem["file"],
		MemorySwap:       r.number(dir, "memory.swap.current"),
		MemoryLimit:      r.number(dir, "memory.max"),
		PIDs:             r.number(dir, "pids.current"),
		OOMKills:         r.flat(dir, "memory.events")["oom_kill"],
	}
	if u.MemoryMax == 0 {
		u.MemoryMax = u.MemoryUsage
	}
	return u, r.err
}

func usageV1(controller func(string) fs.FS) (Usage, error) {
	r := reader{}
	acct, mem := controller("cpuacct"), controller("memory")
	times, throttle, stat := r.flat(acct, "cpuacct.stat"), r.flat(controller("cpu"), "cpu.stat"), r.flat(mem, "memory.stat")
	u := Usage{
		CPUTotal:         time.Duration(r.number(acct, "cpuacct.usage")), //nolint:gosec // nanoseconds of 292 years fit
		CPUUser:          ticks(times["user"]),
		CPUSystem:        ticks(times["system"]),
		ThrottledPeriods: throttle["nr_throttled"],
		ThrottledTime:    time.Duration(throttle["throttled_time"]), //nolint:gosec // nanoseconds of 292 years fit
		MemoryUsage:      r.number(mem, "memory.usage_in_bytes"),
		MemoryMax:        r.number(mem, "memory.max_usage_in_bytes"),
		MemoryRSS:        stat["total_rss"],
		MemoryCache:      stat["total_cache"],
		MemorySwap:       stat["total_swap"],
		MemoryLimit:      r.number(mem, "memory.limit_in_bytes"),
		PIDs:             r.number(controller("pids"), "pids.current"),
		OOMKills:         r.flat(mem, "memory.oom_control")["oom_kill"],
	}
	if u.MemoryLimit >= noLimit {
		u.MemoryLimit = 0
	}
	return u, r.err
}

// reader keeps the first error, so that the callers above stay a table. Missing files are no error: kernels differ.
type reader struct{ err error }

func (r *reader) flat(dir fs.FS, name string) map[string]uint64 {
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		r.keep(name, err)
		return nil
	}
	values, err := parseFlat(string(text))
	r.keep(name, err)
	return values
}

func (r *reader) number(dir fs.FS, name string) uint64 {
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		r.keep(name, err)
		return 0
	}
	value, err := parseNumber(string(text))
	r.keep(name, err)
	return value
}

func (r *reader) keep(name string, err error) {
	if r.err == nil && err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.err = fmt.Errorf("read %s: %w", filepath.Base(name), err)
	}
}

func field(dir fs.FS, name, key string) (uint64, error) {
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	values, err := parseFlat(string(text))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return values[key], nil
}

// parseFlat reads "key value" lines; lines of another form are left out.
func parseFlat(text string) (map[string]uint64, error) {
	values := map[string]uint64{}
	for line := range strings.Lines(text) {
		parts := strings.Fields(line)
		if len(parts) != 2 {
			continue
		}
		value, err := strconv.ParseUint(parts[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", parts[0], err)
		}
		values[parts[0]] = value
	}
	return values, nil
}

// parseNumber reads a single number; "max" is 0, for none.
func parseNumber(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if text == "max" {
		return 0, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

func micros(n uint64) time.Duration {
	return time.Duration(n) * time.Microsecond //nolint:gosec // microseconds of 292 years fit
}

// ticks converts cpuacct's unit, USER_HZ, which is 100 on every architecture that we run on.
func ticks(n uint64) time.Duration {
	return time.Duration(n) * (time.Second / 100) //nolint:gosec // ticks of 292 years fit
}
