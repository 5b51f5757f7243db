package bbs

import (
	"context"

	"code.cloudfoundry.org/bbs/format"
	"code.cloudfoundry.org/bbs/models"

	"drover/bridge"
)

func lrpLifecycle(e *models.Error) message { return &models.DesiredLRPLifecycleResponse{Error: e} }

func (d *door) desireLRP() answer {
	return change(func(ctx context.Context, q *models.DesireLRPRequest) error {
		return d.runtime.DesireLRP(ctx, q.DesiredLrp)
	}, lrpLifecycle)
}

func (d *door) desiredLRP() answer {
	return read(func(ctx context.Context, q *models.DesiredLRPByProcessGuidRequest) (message, error) {
		lrp, err := d.runtime.DesiredLRP(ctx, q.ProcessGuid)
		if err != nil {
			return nil, err
		}
		lrp = lrp.VersionDownTo(format.V2).PopulateMetricsGuid()
		if lrp.Routes == nil {
			lrp.Routes = &models.Routes{} // Cloud Controller looks for a route in it without asking whether it is there.
		}
		return &models.DesiredLRPResponse{DesiredLrp: lrp}, nil
	}, func(e *models.Error) message { return &models.DesiredLRPResponse{Error: e} })
}

func (d *door) schedulingInfos() answer {
	return read(func(ctx context.Context, q *models.DesiredLRPsRequest) (message, error) {
		infos, err := d.runtime.SchedulingInfos(ctx, bridge.LRPFilter{Domain: q.Domain, ProcessGUIDs: q.ProcessGuids})
		return &models.DesiredLRPSchedulingInfosResponse{DesiredLrpSchedulingInfos: infos}, err
	}, func(e *models.Error) message { return &models.DesiredLRPSchedulingInfosResponse{Error: e} })
}

func (d *door) updateLRP() answer {
	return change(func(ctx context.Context, q *models.UpdateDesiredLRPRequest) error {
		update := q.Update
		if update == nil {
			update = &models.DesiredLRPUpdate{} // Changes nothing but the modification tag.
		}
		return d.runtime.UpdateLRP(ctx, q.ProcessGuid, update)
	}, lrpLifecycle)
}

func (d *door) removeLRP() answer {
	return change(func(ctx context.Context, q *models.RemoveDesiredLRPRequest) error {
		return d.runtime.RemoveLRP(ctx, q.ProcessGuid)
	}, lrpLifecycle)
}

func (d *door) actualLRPs() answer {
	return read(func(ctx context.Context, q *models.ActualLRPsRequest) (message, error) {
		filter := bridge.ActualFilter{Domain: q.Domain, CellID: q.CellId}
		if q.ProcessGuid != "" {
			filter.ProcessGUIDs = []string{q.ProcessGuid}
		}
		if q.IndexExists() {
			index := q.GetIndex()
			filter.Index = &index
		}
		lrps, err := d.runtime.ActualLRPs(ctx, filter)
		return &models.ActualLRPsResponse{ActualLrps: lrps}, err
	}, func(e *models.Error) message { return &models.ActualLRPsResponse{Error: e} })
}

func (d *door) actualLRPsByProcessGuids() answer {
	return read(func(ctx context.Context, q *models.ActualLRPsByProcessGuidsRequest) (message, error) {
		lrps, err := d.runtime.ActualLRPs(ctx, bridge.ActualFilter{ProcessGUIDs: q.ProcessGuids})
		return &models.ActualLRPsByProcessGuidsResponse{ActualLrps: lrps}, err
	}, func(e *models.Error) message { return &models.ActualLRPsByProcessGuidsResponse{Error: e} })
}

func (d *door) retireActualLRP() answer {
	return change(func(ctx context.Context, q *models.RetireActualLRPRequest) error {
		return d.runtime.RetireActualLRP(ctx, q.ActualLrpKey)
	}, func(e *models.Error) message { return &models.ActualLRPLifecycleResponse{Error: e} })
}
