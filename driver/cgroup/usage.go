package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a group has used. A field that the host does not account for is zero.
type Usage struct {
	// CPU times since the group was made.
	CPUTotal  time.Duration
	CPUUser   time.Duration
	CPUSystem time.Duration
	// ThrottledPeriods and ThrottledTime tell how often and how long a CPU quota held the group back.
	ThrottledPeriods uint64
	ThrottledTime    time.Duration
	// MemoryUsage is the working set, in bytes: everything charged to the group but the page cache that the kernel takes
	// back first, when memory is short. A group is killed when this reaches its limit, not when the cache does.
	MemoryUsage uint64
	// MemoryMax is the most that was ever charged to the group, page cache included, as the kernel noted it.
	MemoryMax uint64
	// MemoryRSS is anonymous memory, MemoryCache page cache, MemorySwap swap.
	MemoryRSS   uint64
	MemoryCache uint64
	MemorySwap  uint64
}

// Meter reads a group's usage again and again. It opens the group's files once and keeps no other memory, because a node
// may have a thousand groups and be asked for all of them every second. Its methods are called by one at a time.
type Meter struct {
	files []source
	fds   []int
	usage Usage // what is being read; here and not on the stack, where the compiler could not keep it
}

// source is a file of a group and what it says. Files that a kernel lacks are left out.
type source struct {
	path string
	read func(u *Usage, text []byte) error
}

// Meter opens the group's files. Without any the error wraps fs.ErrNotExist.
func (g Group) Meter() (*Meter, error) {
	list := sourcesV2(g.dir(""))
	if !g.v2 {
		list = sourcesV1(g.dir)
	}
	return open(list)
}

// Usage reads what the group has used, once.
func (g Group) Usage() (Usage, error) {
	m, err := g.Meter()
	if err != nil {
		return Usage{}, fmt.Errorf("usage of cgroup %s: %w", g.path, err)
	}
	defer m.Close()
	return m.Read()
}

func open(list []source) (*Meter, error) {
	m := &Meter{}
	for _, s := range list {
		fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			m.Close()
			return nil, &fs.PathError{Op: "open", Path: s.path, Err: err}
		}
		m.files, m.fds = append(m.files, s), append(m.fds, fd)
	}
	if len(m.fds) == 0 {
		return nil, fs.ErrNotExist
	}
	return m, nil
}

// Close closes the files.
func (m *Meter) Close() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
	m.fds = nil
}

// buffers hold one file each while it is read; the largest, memory.stat, has three kilobytes.
var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// Read reads the files. Once the group was removed the error wraps fs.ErrNotExist.
func (m *Meter) Read() (Usage, error) {
	u := &m.usage
	*u = Usage{}
	buffer, _ := buffers.Get().(*[16 << 10]byte) // it holds nothing else
	defer buffers.Put(buffer)
	for i, fd := range m.fds {
		n, err := unix.Pread(fd, buffer[:], 0)
		if errors.Is(err, unix.ENODEV) {
			return Usage{}, fmt.Errorf("read %s: %w", m.files[i].path, fs.ErrNotExist)
		}
		if err == nil {
			err = m.files[i].read(u, buffer[:n])
		}
		if err != nil {
			return Usage{}, fmt.Errorf("read %s: %w", m.files[i].path, err)
		}
	}
	u.MemoryMax = max(u.MemoryMax, u.MemoryUsage) // kernels before 5.19 do not say
	return *u, nil
}

// sourcesV2 are the files of cgroup v2. The order matters: what is charged is read before what of it is cache.
func sourcesV2(dir string) []source {
	return []source{
		{filepath.Join(dir, "cpu.stat"), flat(func(u *Usage, key []byte, value uint64) {
			switch string(key) {
			case "usage_usec":
				u.CPUTotal = micros(value)
			case "user_usec":
				u.CPUUser = micros(value)
			case "system_usec":
				u.CPUSystem = micros(value)
			case "nr_throttled":
				u.ThrottledPeriods = value
			case "throttled_usec":
				u.ThrottledTime = micros(value)
			}
		})},
		{filepath.Join(dir, "memory.current"), number(func(u *Usage, value uint64) { u.MemoryUsage = value })},
		{filepath.Join(dir, "memory.peak"), number(func(u *Usage, value uint64) { u.MemoryMax = value })},
		{filepath.Join(dir, "memory.swap.current"), number(func(u *Usage, value uint64) { u.MemorySwap = value })},
		{filepath.Join(dir, "memory.stat"), flat(func(u *Usage, key []byte, value uint64) {
			switch string(key) {
			case "anon":
				u.MemoryRSS = value
			case "file":
				u.MemoryCache = value
			case "inactive_file":
				u.MemoryUsage -= min(value, u.MemoryUsage)
			}
		})},
	}
}

// sourcesV1 are the files of cgroup v1, below a directory for each controller.
func sourcesV1(dir func(controller string) string) []source {
	return []source{
		{filepath.Join(dir("cpuacct"), "cpuacct.usage"), number(func(u *Usage, value uint64) { u.CPUTotal = nanos(value) })},
		{filepath.Join(dir("cpuacct"), "cpuacct.stat"), flat(func(u *Usage, key []byte, value uint64) {
			switch string(key) {
			case "user":
				u.CPUUser = ticks(value)
			case "system":
				u.CPUSystem = ticks(value)
			}
		})},
		{filepath.Join(dir("cpu"), "cpu.stat"), flat(func(u *Usage, key []byte, value uint64) {
			switch string(key) {
			case "nr_throttled":
				u.ThrottledPeriods = value
			case "throttled_time":
				u.ThrottledTime = nanos(value)
			}
		})},
		{filepath.Join(dir("memory"), "memory.usage_in_bytes"), number(func(u *Usage, value uint64) { u.MemoryUsage = value })},
		{filepath.Join(dir("memory"), "memory.max_usage_in_bytes"), number(func(u *Usage, value uint64) { u.MemoryMax = value })},
		{filepath.Join(dir("memory"), "memory.stat"), flat(func(u *Usage, key []byte, value uint64) {
			switch string(key) {
			case "total_rss":
				u.MemoryRSS = value
			case "total_cache":
				u.MemoryCache = value
			case "total_swap":
				u.MemorySwap = value
			case "total_inactive_file":
				u.MemoryUsage -= min(value, u.MemoryUsage)
			}
		})},
	}
}

// flat reads "key value" lines; lines of another form are left out.
func flat(set func(u *Usage, key []byte, value uint64)) func(*Usage, []byte) error {
	return func(u *Usage, text []byte) error {
		for len(text) > 0 {
			var line []byte
			line, text, _ = bytes.Cut(text, []byte{'\n'})
			key, digits, found := bytes.Cut(line, []byte{' '})
			if !found || bytes.IndexByte(digits, ' ') >= 0 {
				continue
			}
			value, err := parse(digits)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			set(u, key, value)
		}
		return nil
	}
}

// number reads a single number; "max" is 0, for none.
func number(set func(u *Usage, value uint64)) func(*Usage, []byte) error {
	return func(u *Usage, text []byte) error {
		value, err := parse(bytes.TrimSpace(text))
		set(u, value)
		return err
	}
}

// parse reads a decimal number without allocating.
func parse(digits []byte) (uint64, error) {
	if string(digits) == "max" {
		return 0, nil
	}
	var value uint64
	for _, d := range digits {
		if d < '0' || d > '9' || value > (1<<64-1)/10-1 {
			return 0, fmt.Errorf("%q is no number", digits)
		}
		value = value*10 + uint64(d-'0')
	}
	if len(digits) == 0 {
		return 0, errors.New("the number is missing")
	}
	return value, nil
}

// OOMKills counts the processes of the group that the kernel killed for want of memory. It is exact once they ended.
func (g Group) OOMKills() (uint64, error) {
	path := filepath.Join(g.dir("memory"), "memory.oom_control")
	if g.v2 {
		path = filepath.Join(g.dir(""), "memory.events")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("count kills for want of memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if count, found := strings.CutPrefix(line, "oom_kill "); found {
			return strconv.ParseUint(strings.TrimSpace(count), 10, 64)
		}
	}
	return 0, nil
}

func nanos(n uint64) time.Duration {
	return time.Duration(n) //nolint:gosec // nanoseconds of 292 years fit
}

func micros(n uint64) time.Duration {
	return time.Duration(n) * time.Microsecond //nolint:gosec // microseconds of 292 years fit
}

// ticks converts cpuacct's unit, USER_HZ, which is 100 on every architecture that we run on.
func ticks(n uint64) time.Duration {
	return time.Duration(n) * (time.Second / 100) //nolint:gosec // ticks of 292 years fit
}
