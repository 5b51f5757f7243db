package task

import (
	"fmt"
	"path"
	"strings"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// definition is what a DesiredLRP and a TaskDefinition have in common.
type definition struct {
	lrp                bool
	rootFS             string
	username, password string
	env                []*models.EnvironmentVariable
	// first is the action that begins with downloads: an LRP's setup, a Task's whole action.
	first *models.Action
	// main is what the container is for: an LRP's or Task's action.
	main               *models.Action
	cached             []*models.CachedDependency
	layers             []*models.ImageLayer
	downloadUser       string
	trustedCertsTarget string
	maxPIDs            int64
	egress             []*models.SecurityGroupRule
	diskMB             int64
	// logLimit is bytes per second: nil when nothing is said, negative for no limit, and zero for no log at all.
	logLimit *int64
	ports    []uint32
	// ignored names the fields that are set and that this driver does not honour.
	ignored []string
}

func decodeDefinition(info driver.RunInfo) (definition, error) {
	if info.Kind == driver.KindLRP {
		var lrp models.DesiredLRP
		if err := lrp.Unmarshal(info.Definition); err != nil {
			return definition{}, fmt.Errorf("%w: desired LRP %s: %w", driver.ErrBadRunInfo, info.GUID, err)
		}
		return lrpDefinition(&lrp), nil
	}
	var task models.TaskDefinition
	if err := task.Unmarshal(info.Definition); err != nil {
		return definition{}, fmt.Errorf("%w: task definition %s: %w", driver.ErrBadRunInfo, info.GUID, err)
	}
	return taskDefinition(&task), nil
}

func lrpDefinition(l *models.DesiredLRP) definition {
	d := definition{
		lrp: true, rootFS: l.RootFs, username: l.ImageUsername, password: l.ImagePassword, env: l.EnvironmentVariables,
		first: l.Setup, main: l.Action, cached: l.CachedDependencies, layers: l.ImageLayers, downloadUser: l.LegacyDownloadUser,
		trustedCertsTarget: l.TrustedSystemCertificatesPath, maxPIDs: int64(l.MaxPids), diskMB: int64(l.DiskMb), ports: l.Ports,
		egress: l.EgressRules,
	}
	d.ignore("privileged", l.Privileged)
	d.ignore("volume_mounts", len(l.VolumeMounts) > 0)
	d.ignore("volume_mounted_files", len(l.VolumeMountedFiles) > 0)
	d.ignore("sidecars", len(l.Sidecars) > 0)
	d.limitLogs(l.LogRateLimit)
	d.ignore("certificate_properties", l.CertificateProperties != nil)
	return d
}

func taskDefinition(t *models.TaskDefinition) definition {
	d := definition{
		rootFS: t.RootFs, username: t.ImageUsername, password: t.ImagePassword, env: t.EnvironmentVariables,
		first: t.Action, main: t.Action, cached: t.CachedDependencies, layers: t.ImageLayers, downloadUser: t.LegacyDownloadUser,
		trustedCertsTarget: t.TrustedSystemCertificatesPath, maxPIDs: int64(t.MaxPids), diskMB: int64(t.DiskMb),
		egress: t.EgressRules,
	}
	d.ignore("privileged", t.Privileged)
	d.ignore("volume_mounts", len(t.VolumeMounts) > 0)
	d.ignore("volume_mounted_files", len(t.VolumeMountedFiles) > 0)
	d.limitLogs(t.LogRateLimit)
	d.ignore("certificate_properties", t.CertificateProperties != nil)
	return d
}

func (d *definition) ignore(field string, set bool) {
	if set {
		d.ignored = append(d.ignored, field)
	}
}

func (d *definition) limitLogs(l *models.LogRateLimit) {
	if l != nil {
		limit := l.BytesPerSecond
		d.logLimit = &limit
	}
}

// archive is something to be fetched, unpacked once and laid over the root file system.
type archive struct {
	// what names it in errors and events.
	what     string
	from     string
	checksum string
	format   string
	// target is an absolute directory in the container.
	target   string
	owner    uint32
	cacheKey string
	// done is what the shim needs to know in order to skip the download; empty for what is no action.
	done string
}

const (
	formatAuto   = "auto"
	vcapHome     = "/home/vcap"
	userVcap     = "vcap"
	userRoot     = "root"
	maxHeadDepth = 8
)

// archives lists, lowest first, everything that becomes a layer: cached dependencies, image layers, and the downloads
// that stand first in the action tree and have a checksum, so that they can be kept by it.
func (d definition) archives() []archive {
	var list []archive
	for _, dep := range d.cached {
		list = append(list, archive{
			what: orElse(dep.Name, "cached dependency"), from: dep.From, target: path.Clean("/" + dep.To),
			checksum: checksum(dep.ChecksumAlgorithm, dep.ChecksumValue), format: formatAuto, cacheKey: dep.CacheKey,
		})
	}
	for _, layer := range d.layers {
		list = append(list, layerArchive(layer, d.downloadUser))
	}
	for _, download := range headDownloads(d.first) {
		if a, ok := downloadArchive(download); ok {
			list = append(list, a)
		}
	}
	return list
}

func layerArchive(l *models.ImageLayer, downloadUser string) archive {
	a := archive{
		what: orElse(l.Name, "image layer"), from: l.Url, target: path.Clean("/" + l.DestinationPath), format: formatAuto,
	}
	if l.DigestAlgorithm == models.DigestAlgorithmSha256 {
		a.checksum = checksum("sha256", l.DigestValue)
	}
	if l.LayerType == models.LayerTypeExclusive && downloadUser == userVcap {
		a.owner = driver.VcapID
	}
	switch l.MediaType {
	case models.MediaTypeTgz:
		a.format = "tgz"
	case models.MediaTypeTar:
		a.format = "tar"
	case models.MediaTypeZip:
		a.format = "zip"
	case models.MediaTypeInvalid:
	}
	return a
}

// headDownloads returns the downloads that nothing but downloads precedes.
func headDownloads(a *models.Action) []*models.DownloadAction {
	found, _ := headOf(a, maxHeadDepth)
	return found
}

// headOf returns the leading downloads of an action, and whether the action holds nothing else.
func headOf(a *models.Action, depth int) (found []*models.DownloadAction, only bool) {
	switch {
	case a == nil || depth == 0:
		return nil, false
	case a.DownloadAction != nil:
		return []*models.DownloadAction{a.DownloadAction}, true
	case a.TimeoutAction != nil:
		return headOf(a.TimeoutAction.Action, depth-1)
	case a.SerialAction != nil:
		return headOfSerial(a.SerialAction.Actions, depth)
	case a.ParallelAction != nil:
		return headOfParallel(a.ParallelAction.Actions)
	}
	return nil, false
}

func headOfSerial(actions []*models.Action, depth int) (found []*models.DownloadAction, only bool) {
	for _, a := range actions {
		more, onlyDownloads := headOf(a, depth-1)
		found = append(found, more...)
		if !onlyDownloads {
			return found, false
		}
	}
	return found, true
}

// headOfParallel takes the plain downloads of a parallel action: their order against the others does not matter.
func headOfParallel(actions []*models.Action) (found []*models.DownloadAction, only bool) {
	only = true
	for _, a := range actions {
		if a.GetDownloadAction() == nil {
			only = false
			continue
		}
		found = append(found, a.DownloadAction)
	}
	return found, only
}

// downloadArchive says how a download becomes a layer. It does not when it has no checksum to be kept by, or when its
// user or place is known to the container's own /etc/passwd only; the shim does it then.
func downloadArchive(d *models.DownloadAction) (archive, bool) {
	sum := checksum(d.ChecksumAlgorithm, d.ChecksumValue)
	if sum == "" || (d.User != userVcap && d.User != userRoot) {
		return archive{}, false
	}
	a := archive{
		what: orElse(d.Artifact, "download"), from: d.From, checksum: sum, format: formatAuto, target: path.Clean(d.To),
		cacheKey: d.CacheKey, done: d.From + " " + d.To,
	}
	if d.User == userVcap {
		a.owner = driver.VcapID
	}
	if !path.IsAbs(d.To) {
		if d.User != userVcap {
			return archive{}, false
		}
		a.target = path.Join(vcapHome, path.Join("/", d.To))
	}
	return a, true
}

func checksum(algorithm, value string) string {
	if algorithm == "" || value == "" {
		return ""
	}
	return strings.ToLower(algorithm) + ":" + value
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// launcherInfo is the run info of a hand-written droplet job: Diego's own way to run a droplet.
func launcherInfo(guid string, run *models.RunAction) (driver.RunInfo, error) {
	definition := &models.TaskDefinition{Action: models.WrapAction(run), LogSource: "APP"}
	raw, err := definition.Marshal()
	if err != nil {
		return driver.RunInfo{}, fmt.Errorf("encode the launcher's action: %w", err)
	}
	return driver.RunInfo{Kind: driver.KindTask, GUID: guid, Definition: raw}, nil
}
