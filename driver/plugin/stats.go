package plugin

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/hashicorp/nomad/client/lib/cpustats"
	"github.com/hashicorp/nomad/plugins/drivers"

	"drover/driver/shim"
)

// TaskStats sends what a task uses, now and at each interval, until it ends. It reads the host's files and asks nobody, so
// that a node with a thousand tasks can be asked for all of them each second (see BenchmarkThousand in driver/cgroup).
func (d *Driver) TaskStats(ctx context.Context, taskID string, interval time.Duration) (<-chan *drivers.TaskResourceUsage, error) {
	if interval <= 0 {
		return nil, errNoInterval
	}
	ch := make(chan *drivers.TaskResourceUsage)
	reading, err := d.tasks.Meter(taskID)
	if errors.Is(err, shim.ErrNotRunning) {
		close(ch)
		return ch, nil
	}
	if err != nil {
		return nil, known(err)
	}
	go func() {
		defer close(ch)
		defer reading.Close()
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		meter := newMeter(d.compute)
		for {
			usage, err := reading.Read()
			if errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
				return // the task's group was removed at its end
			}
			if err != nil {
				d.log.Debug("stats cannot be read", "task_id", taskID, "error", err)
			} else {
				select {
				case ch <- meter.usage(usage, time.Now()):
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// meter turns growing CPU times into shares of the time that has passed.
type meter struct{ total, user, system *cpustats.Tracker }

func newMeter(c cpustats.Compute) meter {
	return meter{cpustats.New(c), cpustats.New(c), cpustats.New(c)}
}

func (m meter) usage(s shim.Usage, now time.Time) *drivers.TaskResourceUsage {
	percent := m.total.Percent(float64(s.CPUTotal))
	ticks := m.total.TicksConsumed(percent)
	if ticks != ticks { // not a number: the agent did not tell what the node can do
		ticks = 0
	}
	return &drivers.TaskResourceUsage{
		Timestamp: now.UnixNano(),
		ResourceUsage: &drivers.ResourceUsage{
			CpuStats: &drivers.CpuStats{
				Percent: percent, TotalTicks: ticks,
				UserMode: m.user.Percent(float64(s.CPUUser)), SystemMode: m.system.Percent(float64(s.CPUSystem)),
				ThrottledPeriods: s.ThrottledPeriods, ThrottledTime: uint64(s.ThrottledTime),
				Measured: []string{"System Mode", "User Mode", "Percent", "Throttled Periods", "Throttled Time"},
			},
			MemoryStats: &drivers.MemoryStats{
				RSS: s.MemoryRSS, Cache: s.MemoryCache, Swap: s.MemorySwap, Usage: s.MemoryUsage, MaxUsage: s.MemoryMax,
				Measured: []string{"RSS", "Cache", "Swap", "Usage", "Max Usage"},
			},
		},
	}
}
