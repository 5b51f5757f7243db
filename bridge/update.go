package bridge

import (
	"maps"
	"slices"

	"code.cloudfoundry.org/bbs/models"
)

// ApplyUpdate changes what an update names in lrp, which keeps nothing of the update. The modification tag is left to
// the caller. Credentials of images are part of the run info of running instances and cannot be updated.
func ApplyUpdate(lrp *models.DesiredLRP, update *models.DesiredLRPUpdate) error {
	if update.ImageUsernameExists() {
		return models.NewError(models.Error_InvalidRequest, "Invalid field: image_username (cannot be updated)")
	}
	if update.ImagePasswordExists() {
		return models.NewError(models.Error_InvalidRequest, "Invalid field: image_password (cannot be updated)")
	}
	if update.InstancesExists() {
		lrp.Instances = update.GetInstances()
	}
	if update.AnnotationExists() {
		lrp.Annotation = update.GetAnnotation()
	}
	if update.Routes != nil {
		lrp.Routes = CopyRoutes(update.Routes)
	}
	if update.MetricTags != nil {
		lrp.MetricTags = maps.Clone(update.MetricTags)
	}
	return nil
}

// CopyRoutes returns a deep copy; nil stays nil. Values are opaque bytes and are not changed.
func CopyRoutes(routes *models.Routes) *models.Routes {
	if routes == nil {
		return nil
	}
	result := make(models.Routes, len(*routes))
	for key, value := range *routes {
		if value == nil {
			continue
		}
		raw := slices.Clone(*value)
		result[key] = &raw
	}
	return &result
}
