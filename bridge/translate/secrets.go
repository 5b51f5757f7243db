package translate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"

	"drover/driver"
)

// maxChunk keeps a Nomad Variable, with its keys, below Nomad's limit of 64 KiB.
const maxChunk = 60 << 10

// encodeSecrets spreads run info over the variables that the job's own workload identity may read: those of the job,
// of its group and of its task (and no others).
func encodeSecrets(info driver.RunInfo, jobID, group string) ([]Secret, error) {
	text, err := driver.EncodeRunInfo(info)
	if err != nil {
		return nil, err
	}
	paths := SecretPaths(jobID, group)
	var secrets []Secret
	for text != "" {
		if len(secrets) == len(paths) {
			return nil, Refuse("action", "run info too large: environment, actions, certificates and rules together must fit in %d KiB, compressed",
				len(paths)*maxChunk>>10)
		}
		size := min(len(text), maxChunk)
		secrets = append(secrets, Secret{Path: paths[len(secrets)], Text: text[:size]})
		text = text[size:]
	}
	return secrets, nil
}

// SecretPaths lists the paths of the variables that may hold a job's run info, in their order.
func SecretPaths(jobID, group string) []string {
	job := "nomad/jobs/" + jobID
	return []string{job, job + "/" + group, job + "/" + group + "/" + TaskName}
}

// DecodeSecrets is the reverse of the encoding: texts are the variables' run info in the order of their paths.
func DecodeSecrets(texts []string) (driver.RunInfo, error) {
	if len(texts) == 0 {
		return driver.RunInfo{}, errors.New("there is no run info")
	}
	info, err := driver.DecodeRunInfo([]byte(strings.Join(texts, "")))
	if err != nil {
		return driver.RunInfo{}, fmt.Errorf("decode run info: %w", err)
	}
	return info, nil
}

// runInfoTemplate renders run info for the driver. Once: an allocation must not watch variables that never change,
// and nothing restarts when they are deleted.
func runInfoTemplate(secrets []Secret) *api.Template {
	var data strings.Builder
	for _, secret := range secrets {
		fmt.Fprintf(&data, `{{ with nomadVar %q }}{{ .%s }}{{ end }}`, secret.Path, RunInfoItem)
	}
	return &api.Template{
		DestPath:      new(driver.RunInfoFile),
		EmbeddedTmpl:  new(data.String()),
		ChangeMode:    new("noop"),
		Once:          new(true),
		Perms:         new("0600"),
		ErrMissingKey: new(true),
	}
}
