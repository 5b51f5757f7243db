package translate

import (
	"path"

	"code.cloudfoundry.org/bbs/models"
)

// sshd is the lifecycle's ssh server. It is not there yet, and beside an app in a codependent action it would end the
// app: better to say so when the app is desired.
const sshd = "diego-sshd"

// maxActionDepth bounds how deep an action tree may be.
const maxActionDepth = 32

// refuseActions looks through action trees for what no driver honours.
func refuseActions(actions ...*models.Action) error {
	for _, action := range actions {
		if err := refuseAction(action, maxActionDepth); err != nil {
			return err
		}
	}
	return nil
}

func refuseAction(action *models.Action, depth int) error {
	if action == nil {
		return nil
	}
	if depth == 0 {
		return Refuse("action", "is nested deeper than %d", maxActionDepth)
	}
	if run := action.RunAction; run != nil && len(run.VolumeMountedFiles) > 0 {
		return Refuse("action", "volume_mounted_files of a run action are not supported yet")
	}
	if run := action.RunAction; run != nil && path.Base(run.Path) == sshd {
		return Refuse("action", "%s is not supported yet; set allow_app_ssh_access: false in Cloud Controller's configuration, or disable-ssh for the app", sshd)
	}
	for _, child := range children(action) {
		if err := refuseAction(child, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func children(action *models.Action) []*models.Action {
	switch {
	case action.TimeoutAction != nil:
		return []*models.Action{action.TimeoutAction.Action}
	case action.TryAction != nil:
		return []*models.Action{action.TryAction.Action}
	case action.EmitProgressAction != nil:
		return []*models.Action{action.EmitProgressAction.Action}
	case action.SerialAction != nil:
		return action.SerialAction.Actions
	case action.ParallelAction != nil:
		return action.ParallelAction.Actions
	case action.CodependentAction != nil:
		return action.CodependentAction.Actions
	}
	return nil
}
