package nomad

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/uuid"
	"github.com/hashicorp/nomad/api"

	"drover/bridge"
	"drover/bridge/translate"
)

// DesireLRP keeps the contract of bridge.LRPs.
func (r *Runtime) DesireLRP(ctx context.Context, lrp *models.DesiredLRP) error {
	record := newLRPRecord(lrp, uuid.NewString())
	record.CreatedAt = r.config.Now().UnixNano()
	record.UpdatedAt = record.CreatedAt
	desired := lrp.Copy()
	desired.ModificationTag = &models.ModificationTag{Epoch: record.Epoch}
	work, err := translate.LRP(desired, r.options)
	if err != nil {
		return err
	}
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	path := lrpPath(lrp.ProcessGuid)
	defer r.guids.lock(path)()
	return r.submit(ctx, submission{path: path, record: record, work: work})
}

// lrp returns the record of a desired LRP.
func (r *Runtime) lrp(processGUID string) (entry, *lrpRecord, error) {
	found, ok := r.records.get(lrpPath(processGUID))
	if !ok {
		return entry{}, nil, models.ErrResourceNotFound
	}
	record, is := found.record.(*lrpRecord)
	if !is || !record.Ready {
		return entry{}, nil, models.ErrResourceNotFound
	}
	return found, record, nil
}

// lrps returns the records of desired LRPs in the order of their guids.
func (r *Runtime) lrps(filter bridge.LRPFilter) []*lrpRecord {
	var result []*lrpRecord
	for _, e := range r.lrpEntries(filter) {
		if record, is := e.record.(*lrpRecord); is {
			result = append(result, record)
		}
	}
	return result
}

func (r *Runtime) lrpEntries(filter bridge.LRPFilter) []entry {
	var entries []entry
	if len(filter.ProcessGUIDs) == 0 {
		entries = r.records.list(lrpsPath)
	} else {
		guids := slices.Compact(slices.Sorted(slices.Values(filter.ProcessGUIDs)))
		for _, guid := range guids {
			if found, ok := r.records.get(lrpPath(guid)); ok {
				entries = append(entries, found)
			}
		}
	}
	return slices.DeleteFunc(entries, func(e entry) bool {
		record, is := e.record.(*lrpRecord)
		return !is || !record.Ready || (filter.Domain != "" && record.Domain != filter.Domain)
	})
}

// DesiredLRP keeps the contract of bridge.LRPs.
func (r *Runtime) DesiredLRP(ctx context.Context, processGUID string) (*models.DesiredLRP, error) {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	_, record, err := r.lrp(processGUID)
	if err != nil {
		return nil, err
	}
	lrp, err := r.wholeLRP(ctx, record)
	if err != nil {
		return nil, err
	}
	if lrp == nil {
		return nil, models.ErrResourceNotFound
	}
	return lrp, nil
}

// wholeLRP adds the run info to a record; nil when the LRP has been removed meanwhile.
func (r *Runtime) wholeLRP(ctx context.Context, record *lrpRecord) (*models.DesiredLRP, error) {
	info, err := r.readSecrets(ctx, translate.LRPJobID(record.ProcessGUID), translate.LRPGroup, record.Chunks)
	if err != nil || info == nil {
		return nil, err
	}
	lrp := &models.DesiredLRP{}
	if err := lrp.Unmarshal(info.Definition); err != nil {
		return nil, fmt.Errorf("decode LRP %s: %w", record.ProcessGUID, err)
	}
	record.complete(lrp)
	return lrp, nil
}

// DesiredLRPs keeps the contract of bridge.LRPs.
func (r *Runtime) DesiredLRPs(ctx context.Context, filter bridge.LRPFilter) ([]*models.DesiredLRP, error) {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	var result []*models.DesiredLRP
	for _, record := range r.lrps(filter) {
		lrp, err := r.wholeLRP(ctx, record)
		if err != nil {
			return nil, err
		}
		if lrp != nil {
			result = append(result, lrp)
		}
	}
	return result, nil
}

// SchedulingInfos keeps the contract of bridge.LRPs.
func (r *Runtime) SchedulingInfos(ctx context.Context, filter bridge.LRPFilter) ([]*models.DesiredLRPSchedulingInfo, error) {
	_, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	records := r.lrps(filter)
	result := make([]*models.DesiredLRPSchedulingInfo, 0, len(records))
	for _, record := range records {
		info := record.lrp().DesiredLRPSchedulingInfo()
		result = append(result, &info)
	}
	return result, nil
}

// UpdateLRP keeps the contract of bridge.LRPs. The job is changed before the record: an update that was interrupted
// looks as if it had not happened, and is asked for again.
func (r *Runtime) UpdateLRP(ctx context.Context, processGUID string, update *models.DesiredLRPUpdate) error {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	path := lrpPath(processGUID)
	defer r.guids.lock(path)()
	for range attempts {
		if err = r.tryUpdate(ctx, processGUID, update); !errors.Is(err, errConflict) {
			return err
		}
		if _, ok, readErr := r.readRecord(ctx, path); readErr != nil {
			return readErr
		} else if !ok {
			return models.ErrResourceNotFound
		}
	}
	return models.ErrResourceConflict
}

func (r *Runtime) tryUpdate(ctx context.Context, processGUID string, update *models.DesiredLRPUpdate) error {
	found, record, err := r.lrp(processGUID)
	if err != nil {
		return err
	}
	lrp := record.lrp()
	if err := bridge.ApplyUpdate(lrp, update); err != nil {
		return err
	}
	changed := *record
	changed.change(lrp)
	changed.Index++
	changed.UpdatedAt = r.config.Now().UnixNano()
	if _, err := encodeRecord(&changed); err != nil {
		return err
	}
	if changed.Instances != record.Instances || !maps.Equal(changed.Routes, record.Routes) {
		if err := r.reviseJob(ctx, lrp); err != nil {
			return err
		}
	}
	_, err = r.writeRecord(ctx, found.path, found.modifyIndex, &changed)
	return err
}

// reviseJob changes the registered job in place.
func (r *Runtime) reviseJob(ctx context.Context, lrp *models.DesiredLRP) error {
	id := translate.LRPJobID(lrp.ProcessGuid)
	for range attempts {
		job, _, err := r.client.Jobs().Info(id, r.query(ctx))
		if isNotFound(err) {
			return models.ErrResourceNotFound
		}
		if err != nil {
			return fmt.Errorf("read job %s: %w", id, err)
		}
		if err := translate.Revise(job, lrp, r.options); err != nil {
			return err
		}
		_, _, err = r.client.Jobs().EnforceRegister(job, *job.JobModifyIndex, r.write(ctx))
		if err == nil {
			return nil
		}
		if !isEnforceConflict(err) {
			return fmt.Errorf("register job %s: %w", id, err)
		}
	}
	return models.ErrResourceConflict
}

func isEnforceConflict(err error) bool {
	var unexpected api.UnexpectedResponseError
	return errors.As(err, &unexpected) && unexpected.HasBody() &&
		len(unexpected.Body()) >= len(api.RegisterEnforceIndexErrPrefix) &&
		unexpected.Body()[:len(api.RegisterEnforceIndexErrPrefix)] == api.RegisterEnforceIndexErrPrefix
}

// RemoveLRP keeps the contract of bridge.LRPs.
func (r *Runtime) RemoveLRP(ctx context.Context, processGUID string) error {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	defer r.guids.lock(lrpPath(processGUID))()
	if _, _, err := r.lrp(processGUID); err != nil {
		return err
	}
	return r.forget(ctx, lrpPath(processGUID), translate.LRPJobID(processGUID), translate.LRPGroup)
}
