package task

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"drover/driver"
)

// maxOOMScoreAdj is the kernel's: the first of all to be killed.
const maxOOMScoreAdj = 1000

// Bounds of the kernel's for the period of a CPU quota, in microseconds.
const (
	minCFSPeriod = 1000
	maxCFSPeriod = 1_000_000
)

// LimitConfig is an operator's part of: Limits beside those of the resources block.
type LimitConfig struct {
	// OOMScoreAdj is the least that a task has.
	OOMScoreAdj int
}

func (c LimitConfig) validate() error {
	if c.OOMScoreAdj < 0 || c.OOMScoreAdj > maxOOMScoreAdj {
		return fmt.Errorf("oom_score_adj: %d must be between 0 and %d", c.OOMScoreAdj, maxOOMScoreAdj)
	}
	return nil
}

// LimitWish is a job's part of the same. What is zero or empty is the node's default.
type LimitWish struct {
	// Ulimits map a name such as nofile to "SOFT:HARD" or one number for both.
	Ulimits map[string]string
	// ShmSize is the size of /dev/shm, such as 64m.
	ShmSize     string
	OOMScoreAdj int
	// CPUPeriod is that of cpu_hard_limit's quota, in microseconds.
	CPUPeriod int64
	// CPUSet is a list of processors such as 0-2,5.
	CPUSet string
	// MemoryHardMB makes the task's memory a reservation below this limit.
	MemoryHardMB int64
}

func (w LimitWish) validate(node Config) error {
	_, ulimitErr := w.ulimits()
	_, shmErr := w.shmBytes()
	errs := []error{ulimitErr, shmErr}
	if w.OOMScoreAdj != 0 && (w.OOMScoreAdj < node.Limit.OOMScoreAdj || w.OOMScoreAdj > maxOOMScoreAdj) {
		errs = append(errs, fmt.Errorf("oom_score_adj: %d must be between %d, the least that this node's operator allows, and %d",
			w.OOMScoreAdj, node.Limit.OOMScoreAdj, maxOOMScoreAdj))
	}
	if w.CPUPeriod != 0 && (w.CPUPeriod < minCFSPeriod || w.CPUPeriod > maxCFSPeriod) {
		errs = append(errs, fmt.Errorf("cpu_cfs_period: %d must be between %d and %d microseconds", w.CPUPeriod, minCFSPeriod, maxCFSPeriod))
	}
	if w.CPUSet != "" && !isCPUList(w.CPUSet) {
		errs = append(errs, fmt.Errorf("cpuset_cpus: %q is not a list of processors such as \"0-2,5\"", w.CPUSet))
	}
	if w.MemoryHardMB < 0 {
		errs = append(errs, fmt.Errorf("memory_hard_limit: %d must be a number of MB", w.MemoryHardMB))
	}
	return errors.Join(errs...)
}

// applyLimit puts into the container how much it may have.
func (f facts) applyLimit(c *driver.Container) error {
	w, l := f.req.Wish.Limit, &c.Limits
	var err error
	if l.Ulimits, err = w.ulimits(); err != nil {
		return err
	}
	if l.ShmBytes, err = w.shmBytes(); err != nil {
		return err
	}
	l.OOMScoreAdj = max(w.OOMScoreAdj, f.node.Limit.OOMScoreAdj)
	if w.CPUPeriod > 0 && l.CPUQuota > 0 {
		l.CPUPeriod = uint64(w.CPUPeriod)
		l.CPUQuota = cpuQuota(f.req.Resources.CPUFraction, l.CPUPeriod, f.cpus)
	}
	return errors.Join(w.memoryHardLimit(f.req.Resources, l), f.applyCPUSet(c))
}

// memoryHardLimit is Docker's: the task's memory becomes a reservation, and the larger of this limit and memory_max the
// one that holds.
func (w LimitWish) memoryHardLimit(r Resources, l *driver.Limits) error {
	if w.MemoryHardMB == 0 || r.MemoryMaxMB < 0 { // there is no limit
		return nil
	}
	if w.MemoryHardMB < r.MemoryMB {
		return fmt.Errorf("memory_hard_limit: %d MB must not be below the %d MB of the task's resources", w.MemoryHardMB, r.MemoryMB)
	}
	l.MemoryBytes, l.MemoryReservationBytes = max(w.MemoryHardMB, r.MemoryMaxMB)<<20, r.MemoryMB<<20
	return nil
}

// applyCPUSet: on cgroup v2 the task's own group is narrowed, within what Nomad lets all shared tasks use. On v1 those
// share one cpuset, so that this one gets a cpuset of its own instead.
func (f facts) applyCPUSet(c *driver.Container) error {
	list := f.req.Wish.Limit.CPUSet
	if list == "" {
		return nil
	}
	if f.req.Resources.Cores != "" {
		return errors.New("cpuset_cpus: not allowed together with resources.cores, which says it itself")
	}
	c.Limits.CPUSet, c.CpusetCgroup = list, ""
	return nil
}

func (w LimitWish) shmBytes() (int64, error) {
	if w.ShmSize == "" {
		return 0, nil
	}
	n, err := parseBytes(w.ShmSize)
	if err == nil && n == 0 {
		err = errors.New("must be more than zero")
	}
	if err != nil {
		return 0, fmt.Errorf("shm_size: %w", err)
	}
	return n, nil
}

// ulimits reads Docker's map, in the order of the names.
func (w LimitWish) ulimits() ([]driver.Ulimit, error) {
	var list []driver.Ulimit
	var errs []error
	for _, name := range sortedKeys(w.Ulimits) {
		if !slices.Contains(driver.UlimitNames(), name) {
			errs = append(errs, fmt.Errorf("ulimit: there is no limit %q; there are %s", name, strings.Join(driver.UlimitNames(), ", ")))
			continue
		}
		softText, hardText, two := strings.Cut(w.Ulimits[name], ":")
		if !two {
			hardText = softText
		}
		soft, softErr := parseUlimit(softText)
		hard, hardErr := parseUlimit(hardText)
		if softErr != nil || hardErr != nil || soft > hard {
			errs = append(errs, fmt.Errorf("ulimit: %s: %q must be a number, or SOFT:HARD with SOFT at most HARD; -1 is unlimited", name, w.Ulimits[name]))
			continue
		}
		list = append(list, driver.Ulimit{Name: name, Soft: soft, Hard: hard})
	}
	return list, errors.Join(errs...)
}

func parseUlimit(text string) (uint64, error) {
	if text == "-1" || text == "unlimited" {
		return driver.Unlimited, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// isCPUList says whether a text is a list of numbers and ranges.
func isCPUList(text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return false
		}
		if !isRange {
			continue
		}
		if to, err := strconv.ParseUint(last, 10, 16); err != nil || to < from {
			return false
		}
	}
	return true
}
