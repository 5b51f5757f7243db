// Package bridgetest helps to test what calls or keeps bridge.Runtime: Memory is a Runtime in memory whose cells are
// the test's own hands (StartTask, RunLRP, CrashLRP …), Contract is the suite that every Runtime passes, and LRP and
// Task make small valid definitions.
//
// Memory places nothing by itself: an instance stays UNCLAIMED and a Task Pending until the test says otherwise.
package bridgetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

// resolvingTimeout is how long a claimed result stays Resolving before it may be claimed again.
const resolvingTimeout = 30 * time.Second

// Memory is a bridge.Runtime in memory. Make it with NewMemory.
type Memory struct {
	now func() time.Time

	mu      sync.Mutex
	epochs  int
	lrps    map[string]*memoryLRP
	tasks   map[string]*models.Task
	domains map[string]time.Time
	hints   map[chan struct{}]struct{}
}

type memoryLRP struct {
	desired *models.DesiredLRP
	actuals []*models.ActualLRP
}

var _ bridge.Runtime = (*Memory)(nil)

// NewMemory returns an empty Runtime. now may be nil for the real clock.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{
		now:     now,
		lrps:    map[string]*memoryLRP{},
		tasks:   map[string]*models.Task{},
		domains: map[string]time.Time{},
		hints:   map[chan struct{}]struct{}{},
	}
}

// message is what every type of bbs/models can do.
type message[T any] interface {
	*T
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// clone copies a message by way of its encoding; an unencodable message is a fault of the test.
func clone[T any, P message[T]](from P) P {
	raw, err := from.Marshal()
	if err != nil {
		panic(fmt.Sprintf("bridgetest: encode %T: %v", from, err))
	}
	to := P(new(T))
	if err := to.Unmarshal(raw); err != nil {
		panic(fmt.Sprintf("bridgetest: decode %T: %v", from, err))
	}
	return to
}

// UpsertDomain keeps the contract of bridge.Domains.
func (m *Memory) UpsertDomain(_ context.Context, domain string, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := time.Time{}
	if ttl > 0 {
		until = m.now().Add(ttl)
	}
	m.domains[domain] = until
	return nil
}

// FreshDomains keeps the contract of bridge.Domains.
func (m *Memory) FreshDomains(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var fresh []string
	for domain, until := range m.domains {
		if until.IsZero() || m.now().Before(until) {
			fresh = append(fresh, domain)
		}
	}
	slices.Sort(fresh)
	return fresh, nil
}

// DesireLRP keeps the contract of bridge.LRPs.
func (m *Memory) DesireLRP(_ context.Context, lrp *models.DesiredLRP) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lrps[lrp.ProcessGuid] != nil {
		return models.ErrResourceExists
	}
	desired := clone(lrp)
	desired.ModificationTag = &models.ModificationTag{Epoch: m.epoch()}
	entry := &memoryLRP{desired: desired}
	m.lrps[lrp.ProcessGuid] = entry
	m.resize(entry)
	return nil
}

// DesiredLRP keeps the contract of bridge.LRPs.
func (m *Memory) DesiredLRP(_ context.Context, processGUID string) (*models.DesiredLRP, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.lrps[processGUID]
	if entry == nil {
		return nil, models.ErrResourceNotFound
	}
	return clone(entry.desired), nil
}

// DesiredLRPs keeps the contract of bridge.LRPs.
func (m *Memory) DesiredLRPs(_ context.Context, filter bridge.LRPFilter) ([]*models.DesiredLRP, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var result []*models.DesiredLRP
	for _, entry := range m.lrps {
		lrp := entry.desired
		if filter.Domain != "" && lrp.Domain != filter.Domain {
			continue
		}
		if len(filter.ProcessGUIDs) > 0 && !slices.Contains(filter.ProcessGUIDs, lrp.ProcessGuid) {
			continue
		}
		result = append(result, clone(lrp))
	}
	slices.SortFunc(result, func(a, b *models.DesiredLRP) int { return cmp.Compare(a.ProcessGuid, b.ProcessGuid) })
	return result, nil
}

// SchedulingInfos keeps the contract of bridge.LRPs.
func (m *Memory) SchedulingInfos(ctx context.Context, filter bridge.LRPFilter) ([]*models.DesiredLRPSchedulingInfo, error) {
	lrps, err := m.DesiredLRPs(ctx, filter)
	if err != nil {
		return nil, err
	}
	result := make([]*models.DesiredLRPSchedulingInfo, 0, len(lrps))
	for _, lrp := range lrps {
		info := lrp.DesiredLRPSchedulingInfo()
		result = append(result, &info)
	}
	return result, nil
}

// UpdateLRP keeps the contract of bridge.LRPs.
func (m *Memory) UpdateLRP(_ context.Context, processGUID string, update *models.DesiredLRPUpdate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.lrps[processGUID]
	if entry == nil {
		return models.ErrResourceNotFound
	}
	if err := bridge.ApplyUpdate(entry.desired, update); err != nil {
		return err
	}
	entry.desired = clone(entry.desired)
	entry.desired.ModificationTag.Increment()
	m.resize(entry)
	return nil
}

// RemoveLRP keeps the contract of bridge.LRPs.
func (m *Memory) RemoveLRP(_ context.Context, processGUID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lrps[processGUID] == nil {
		return models.ErrResourceNotFound
	}
	delete(m.lrps, processGUID)
	return nil
}

// ActualLRPs keeps the contract of bridge.LRPs.
func (m *Memory) ActualLRPs(_ context.Context, filter bridge.ActualFilter) ([]*models.ActualLRP, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var result []*models.ActualLRP
	for _, entry := range m.lrps {
		for _, actual := range entry.actuals {
			if matches(filter, actual) {
				result = append(result, clone(actual))
			}
		}
	}
	slices.SortFunc(result, func(a, b *models.ActualLRP) int {
		return cmp.Or(cmp.Compare(a.ProcessGuid, b.ProcessGuid), cmp.Compare(a.Index, b.Index))
	})
	return result, nil
}

func matches(filter bridge.ActualFilter, actual *models.ActualLRP) bool {
	return (filter.Domain == "" || actual.Domain == filter.Domain) &&
		(filter.CellID == "" || actual.CellId == filter.CellID) &&
		(filter.Index == nil || actual.Index == *filter.Index) &&
		(len(filter.ProcessGUIDs) == 0 || slices.Contains(filter.ProcessGUIDs, actual.ProcessGuid))
}

// RetireActualLRP keeps the contract of bridge.LRPs: the instance is UNCLAIMED again at once.
func (m *Memory) RetireActualLRP(_ context.Context, key *models.ActualLRPKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.lrps[key.ProcessGuid]
	if entry == nil || key.Index < 0 || int(key.Index) >= len(entry.actuals) {
		return models.ErrResourceNotFound
	}
	entry.actuals[key.Index] = m.unclaimed(entry.desired, key.Index)
	return nil
}

// resize makes or drops instances at the end.
func (m *Memory) resize(entry *memoryLRP) {
	want := int(entry.desired.Instances)
	if len(entry.actuals) > want {
		entry.actuals = entry.actuals[:want]
	}
	for index := len(entry.actuals); index < want; index++ {
		entry.actuals = append(entry.actuals, m.unclaimed(entry.desired, int32(index)))
	}
}

func (m *Memory) unclaimed(lrp *models.DesiredLRP, index int32) *models.ActualLRP {
	key := models.NewActualLRPKey(lrp.ProcessGuid, index, lrp.Domain)
	actual := models.NewUnclaimedActualLRP(key, m.now().UnixNano())
	actual.ModificationTag = models.NewModificationTag(m.epoch(), 0)
	actual.SetRoutable(false)
	return actual
}

func (m *Memory) epoch() string {
	m.epochs++
	return fmt.Sprintf("epoch-%d", m.epochs)
}
