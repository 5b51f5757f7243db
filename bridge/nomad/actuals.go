package nomad

import (
	"context"
	"fmt"
	"slices"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"

	"drover/bridge"
	"drover/bridge/translate"
)

// ActualLRPs keeps the contract of bridge.LRPs.
func (r *Runtime) ActualLRPs(ctx context.Context, filter bridge.ActualFilter) ([]*models.ActualLRP, error) {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	entries := r.lrpEntries(bridge.LRPFilter{Domain: filter.Domain, ProcessGUIDs: filter.ProcessGUIDs})
	result := r.actuals(ctx, entries, nil)
	if slices.ContainsFunc(result, unplaced) {
		reasons, err := r.blocked(ctx)
		if err != nil {
			return nil, err
		}
		result = r.actuals(ctx, entries, reasons)
	}
	return slices.DeleteFunc(result, func(actual *models.ActualLRP) bool {
		return (filter.CellID != "" && actual.CellId != filter.CellID) || (filter.Index != nil && actual.Index != *filter.Index)
	}), nil
}

func unplaced(actual *models.ActualLRP) bool { return actual.State == models.ActualLRPStateUnclaimed }

func (r *Runtime) actuals(ctx context.Context, entries []entry, reasons map[string]*api.AllocationMetric) []*models.ActualLRP {
	var result []*models.ActualLRP
	for _, e := range entries {
		record, is := e.record.(*lrpRecord)
		if !is {
			continue
		}
		job := translate.LRPJobID(record.ProcessGUID)
		result = append(result, translate.Actuals(translate.Instances{
			LRP:            record.lrp(),
			Since:          record.UpdatedAt,
			CreateIndex:    e.createIndex,
			ModifyIndex:    e.modifyIndex,
			Allocations:    r.allocs.of(job),
			PlacementError: translate.Placement(reasons[job]),
			NodeAddress:    func(id string) string { return r.nodes.address(ctx, id) },
		})...)
	}
	return result
}

// RetireActualLRP keeps the contract of bridge.LRPs.
func (r *Runtime) RetireActualLRP(ctx context.Context, key *models.ActualLRPKey) error {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	found, record, err := r.lrp(key.ProcessGuid)
	if err != nil {
		return err
	}
	if key.Index < 0 || key.Index >= record.Instances {
		return models.ErrResourceNotFound
	}
	for _, alloc := range translate.LiveAt(r.allocs.of(translate.LRPJobID(key.ProcessGuid)), key.Index, found.createIndex) {
		if _, err := r.client.Allocations().Stop(&api.Allocation{ID: alloc}, r.query(ctx)); err != nil && !isNotFound(err) {
			return fmt.Errorf("stop allocation %s: %w", alloc, err)
		}
	}
	return nil
}
