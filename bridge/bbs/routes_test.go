package bbs

import (
	"testing"

	diego "code.cloudfoundry.org/bbs"
	"github.com/google/go-cmp/cmp"
)

func TestRoutes_areDiegosOwn(t *testing.T) {
	type line struct{ Method, Path string }
	want, got := map[string]line{}, map[string]line{}
	for _, r := range diego.Routes {
		want[r.Name] = line{r.Method, r.Path}
	}
	for _, r := range Routes() {
		got[r.Name] = line{r.Method, r.Path}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-Diego's +ours):\n%s", diff)
	}
}

func TestRoutes_servedAreWhatCloudControllerCalls(t *testing.T) {
	want := map[string]bool{
		diego.PingRoute_r0: true, diego.UpsertDomainRoute_r0: true,
		diego.DesireTaskRoute_r2: true, diego.TaskByGuidRoute_r2: true, diego.TasksRoute_r2: true, diego.CancelTaskRoute_r0: true,
		diego.DesireDesiredLRPRoute_r2: true, diego.DesiredLRPByProcessGuidRoute_r2: true, diego.UpdateDesiredLRPRoute_r0: true,
		diego.RemoveDesiredLRPRoute_r0: true, diego.DesiredLRPSchedulingInfosRoute_r0: true,
		diego.ActualLRPsRoute_r0: true, diego.ActualLRPsByProcessGuidsRoute_r0: true, diego.RetireActualLRPRoute_r0: true,
	}
	got := map[string]bool{}
	for _, r := range Routes() {
		if r.State == Served {
			got[r.Name] = true
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("served routes (-want +got):\n%s", diff)
	}
}
