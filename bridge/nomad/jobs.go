package nomad

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"code.cloudfoundry.org/bbs/models"
	"github.com/hashicorp/nomad/api"

	"drover/bridge/translate"
	"drover/driver"
)

// claimFor is how long another process may take from the claim of a record to its job.
const claimFor = 30 * time.Second

// submission is an LRP or a Task on its way to Nomad.
type submission struct {
	path   string
	record headed
	work   translate.Work
}

// submit claims the record, writes run info, registers the job and marks the record as ready, so that whatever is
// interrupted can be asked for again. The caller holds the lock of the path.
func (r *Runtime) submit(ctx context.Context, s submission) error {
	head := s.record.head()
	head.Owner = r.owner
	head.Chunks = len(s.work.Secrets)
	claimed, err := r.claim(ctx, s)
	if err != nil {
		return err
	}
	for _, secret := range s.work.Secrets {
		if err := r.writeSecret(ctx, secret); err != nil {
			return err
		}
	}
	if _, _, err := r.client.Jobs().Register(s.work.Job, r.write(ctx)); err != nil {
		return r.rejected(ctx, s, err)
	}
	if _, err := r.writeRecord(ctx, s.path, claimed.modifyIndex, s.record.registered()); err != nil {
		if errors.Is(err, errConflict) {
			return models.ErrResourceConflict
		}
		return err
	}
	return nil
}

// claim makes the record, or takes over one that was never completed.
func (r *Runtime) claim(ctx context.Context, s submission) (entry, error) {
	claimed, err := r.writeRecord(ctx, s.path, 0, s.record)
	if !errors.Is(err, errConflict) {
		return claimed, err
	}
	known, ok, err := r.readRecord(ctx, s.path)
	if err != nil {
		return entry{}, err
	}
	if !ok {
		return entry{}, models.ErrResourceConflict
	}
	record, is := known.record.(headed)
	if !is || record.head().Ready {
		return entry{}, models.ErrResourceExists
	}
	head := record.head()
	age := r.config.Now().Sub(time.Unix(0, head.UpdatedAt))
	if head.Owner != r.owner && age < claimFor {
		return entry{}, models.ErrResourceConflict
	}
	claimed, err = r.writeRecord(ctx, s.path, known.modifyIndex, s.record)
	if errors.Is(err, errConflict) {
		return entry{}, models.ErrResourceConflict
	}
	return claimed, err
}

// rejected gives up a record whose job Nomad does not take, when it is the job's fault.
func (r *Runtime) rejected(ctx context.Context, s submission, cause error) error {
	text, is := validationError(cause)
	if !is {
		return fmt.Errorf("register job %s: %w", *s.work.Job.ID, cause)
	}
	r.log.Warn("nomad refuses a job", "job", *s.work.Job.ID, "error", text)
	if err := r.forget(ctx, s.path, *s.work.Job.ID, *s.work.Job.TaskGroups[0].Name); err != nil {
		return err
	}
	return models.NewError(models.Error_InvalidRequest, "nomad refuses the job: "+text)
}

// validationError tells a job that Nomad will never take from a Nomad that cannot answer.
func validationError(err error) (string, bool) {
	var unexpected api.UnexpectedResponseError
	if !errors.As(err, &unexpected) || !unexpected.HasBody() {
		return "", false
	}
	body := unexpected.Body()
	return body, unexpected.StatusCode() == 400 || strings.Contains(body, "validation")
}

func (r *Runtime) writeSecret(ctx context.Context, secret translate.Secret) error {
	variable := &api.Variable{
		Path:      secret.Path,
		Namespace: r.options.Namespace,
		Items:     api.VariableItems{translate.RunInfoItem: secret.Text},
	}
	if _, _, err := r.client.Variables().Update(variable, r.write(ctx)); err != nil {
		return fmt.Errorf("write run info: %w", err)
	}
	return nil
}

// readSecrets returns the run info of a job, nil when it is gone.
func (r *Runtime) readSecrets(ctx context.Context, jobID, group string, chunks int) (*driver.RunInfo, error) {
	paths := translate.SecretPaths(jobID, group)
	var texts []string
	for _, path := range paths[:min(chunks, len(paths))] {
		variable, _, err := r.client.Variables().Peek(path, r.query(ctx))
		if err != nil {
			return nil, fmt.Errorf("read run info of job %s: %w", jobID, err)
		}
		if variable == nil {
			return nil, nil
		}
		texts = append(texts, variable.Items[translate.RunInfoItem])
	}
	info, err := translate.DecodeSecrets(texts)
	if err != nil {
		return nil, fmt.Errorf("%w: job %s: %w", errDamaged, jobID, err)
	}
	return &info, nil
}

// errDamaged is wrapped when run info is there and cannot be decoded: trying again does not help.
var errDamaged = errors.New("the run info is damaged")

// forget removes a job, its run info and its record, in this order: whatever is interrupted is still known.
func (r *Runtime) forget(ctx context.Context, path, jobID, group string) error {
	if _, _, err := r.client.Jobs().Deregister(jobID, true, r.write(ctx)); err != nil && !isNotFound(err) {
		return fmt.Errorf("deregister job %s: %w", jobID, err)
	}
	for _, secret := range translate.SecretPaths(jobID, group) {
		if err := r.deleteVariable(ctx, secret); err != nil {
			return err
		}
	}
	return r.deleteVariable(ctx, path)
}

// finishRemoval drops a record whose job and run info are gone: its removal was interrupted. It does nothing when the
// record has changed meanwhile, as when somebody asks for the same guid again.
func (r *Runtime) finishRemoval(ctx context.Context, e entry) error {
	meta, err := r.client.Variables().CheckedDelete(e.path, e.modifyIndex, r.write(ctx))
	var conflict api.ErrCASConflict
	switch {
	case errors.As(err, &conflict):
		return nil
	case err != nil && !isNotFound(err):
		return fmt.Errorf("delete variable %s: %w", e.path, err)
	}
	index := e.modifyIndex
	if meta != nil {
		index = max(index, meta.LastIndex)
	}
	r.records.drop(e.path, index)
	r.log.Warn("finished the removal of what was removed by half", "path", e.path)
	return nil
}
