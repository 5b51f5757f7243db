package driver

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// RunInfoFile is where the bridge's jobs render run info, relative to the task's directory. Nomad's private
// directory is not visible in the container.
const RunInfoFile = "private/run_info"

// NodeIPEnv names the variable by which the bridge's jobs tell the node's address, which Nomad gives to no driver of a task
// without ports. It is for the driver: an app does not see it.
const NodeIPEnv = "DROVER_NODE_IP"

// Kinds of RunInfo.Definition.
const (
	KindLRP  = "lrp"
	KindTask = "task"
)

// maxRunInfo bounds what DecodeRunInfo inflates.
const maxRunInfo = 8 << 20

// RunInfo carries what Diego's BBS would tell a cell about one LRP or Task. It is secret: environment, credentials,
// signed URLs. It travels through Nomad Variables, never through a job.
type RunInfo struct {
	// Kind is KindLRP or KindTask.
	Kind string `json:"kind"`
	// GUID is the LRP's process guid or the Task's guid.
	GUID string `json:"guid"`
	// Definition is the protobuf encoding of bbs/models.DesiredLRP or bbs/models.TaskDefinition.
	Definition []byte `json:"definition"`
}

// ErrBadRunInfo is wrapped by every error of DecodeRunInfo.
var ErrBadRunInfo = errors.New("run info cannot be read")

// EncodeRunInfo returns run info as printable text (base64 of gzip of JSON), fit for Nomad Variables.
func EncodeRunInfo(info RunInfo) (string, error) {
	raw, err := json.Marshal(info)
	if err != nil {
		return "", fmt.Errorf("encode run info of %s: %w", info.GUID, err)
	}
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	if _, err := zip.Write(raw); err != nil {
		return "", fmt.Errorf("compress run info of %s: %w", info.GUID, err)
	}
	if err := zip.Close(); err != nil {
		return "", fmt.Errorf("compress run info of %s: %w", info.GUID, err)
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

// DecodeRunInfo reads what EncodeRunInfo wrote; white space around and in the text is ignored.
func DecodeRunInfo(text []byte) (RunInfo, error) {
	text = bytes.Join(bytes.Fields(text), nil)
	zip, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(text)))
	if err != nil {
		return RunInfo{}, fmt.Errorf("%w: %w", ErrBadRunInfo, err)
	}
	raw, err := io.ReadAll(io.LimitReader(zip, maxRunInfo+1))
	if err != nil {
		return RunInfo{}, fmt.Errorf("%w: %w", ErrBadRunInfo, err)
	}
	if len(raw) > maxRunInfo {
		return RunInfo{}, fmt.Errorf("%w: larger than %d bytes", ErrBadRunInfo, maxRunInfo)
	}
	var info RunInfo
	if err := json.Unmarshal(raw, &info); err != nil {
		return RunInfo{}, fmt.Errorf("%w: %w", ErrBadRunInfo, err)
	}
	if info.Kind != KindLRP && info.Kind != KindTask {
		return RunInfo{}, fmt.Errorf("%w: kind %q is neither %q nor %q", ErrBadRunInfo, info.Kind, KindLRP, KindTask)
	}
	return info, nil
}
