package task

import (
	"fmt"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// What rootfs_owner may be: the image's files belong to whom the image says, or root's belong to the task's user.
const (
	OwnerImage = "image"
	OwnerUser  = "user"
)

func validateOwner(owner string) error {
	if owner != "" && owner != OwnerImage && owner != OwnerUser {
		return fmt.Errorf("rootfs_owner: %q is neither %q nor %q", owner, OwnerImage, OwnerUser)
	}
	return nil
}

// owner says to whom the image belongs. The operator's default is for images that come from a registry: stacks are made
// for their user, and so are the layers above the image. A run info's job can have it for such images only.
func (f facts) owner(c driver.Container) *driver.Owner {
	wish := f.req.Wish.Storage.RootFSOwner
	fromRegistry := f.req.Wish.Image != ""
	if f.info != nil {
		root, err := parseRootFS(f.def.rootFS)
		fromRegistry = err == nil && root.Image != ""
	}
	if fromRegistry {
		wish = orElse(wish, f.node.Storage.RootFSOwner)
	}
	if wish != OwnerUser || f.info != nil && !fromRegistry {
		return nil
	}
	var user string
	switch {
	case f.info != nil:
		user = firstUser(f.def.main, maxHeadDepth)
	case c.Work != nil:
		user = orElse(f.req.Wish.User, userVcap)
	default:
		user = c.Process.User
	}
	if user == "" || user == userRoot || user == "0" {
		return nil
	}
	return &driver.Owner{User: user, Layers: f.imageLayers}
}

// firstUser is the user of the first program that an action runs.
func firstUser(a *models.Action, depth int) string {
	if a == nil || depth == 0 {
		return ""
	}
	if a.RunAction != nil {
		return a.RunAction.User
	}
	var inner []*models.Action
	inner = append(inner, a.GetTimeoutAction().GetAction(), a.GetEmitProgressAction().GetAction(), a.GetTryAction().GetAction())
	inner = append(inner, a.GetSerialAction().GetActions()...)
	inner = append(inner, a.GetParallelAction().GetActions()...)
	inner = append(inner, a.GetCodependentAction().GetActions()...)
	for _, next := range inner {
		if user := firstUser(next, depth-1); user != "" {
			return user
		}
	}
	return ""
}
