package recipe

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"code.cloudfoundry.org/bbs/models"
	"github.com/cespare/xxhash/v2"
)

const (
	stagingResult    = "/tmp/result.json"
	stagingLogSource = "STG"
	stagingWeight    = 50
)

// Build is one attempt to stage an app.
type Build struct {
	GUID string
	// PackageGUID and PackageSHA256 name the app's bits; empty for Docker apps.
	PackageGUID   string
	PackageSHA256 string
	// CacheSHA256 is the checksum of the build artifacts cache of the last staging; empty when there is none.
	CacheSHA256 string
	// Buildpacks are tried in this order; they are used without detection when SkipDetect is set.
	Buildpacks []BuildpackFile
	SkipDetect bool
	// Image is what a Docker app is staged from.
	Image string
}

// BuildpackFile is an admin buildpack.
type BuildpackFile struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	URL    string `json:"url"`
	SHA256 string `json:"sha256"`
}

// Staging is the Task that stages an app.
func Staging(p Platform, a App, b Build) (*models.TaskDefinition, error) {
	droplet := Droplet{Lifecycle: Docker}
	if b.Image == "" {
		droplet = Droplet{Lifecycle: Buildpack, Stack: p.Stack}
	}
	bundle, err := lifecycle(p, droplet)
	if err != nil {
		return nil, err
	}
	memory := max(a.MemoryMB, p.Staging.MemoryMB)
	env, err := stagingVariables(p, a, droplet, memory)
	if err != nil {
		return nil, err
	}
	task := &models.TaskDefinition{
		RootFs:                        "preloaded:" + p.Stack,
		CompletionCallbackUrl:         fmt.Sprintf("%s/internal/v3/staging/%s/build_completed?start=false", p.CC, b.GUID),
		CpuWeight:                     stagingWeight,
		MemoryMb:                      memory,
		DiskMb:                        max(a.DiskMB, p.Staging.DiskMB),
		MaxPids:                       p.PIDs,
		LogGuid:                       a.GUID,
		LogSource:                     stagingLogSource,
		LogRateLimit:                  unlimitedLogs(),
		MetricTags:                    metricTags(a),
		ResultFile:                    stagingResult,
		EgressRules:                   p.EgressRules,
		TrustedSystemCertificatesPath: certificatesPath,
		Network:                       network(a, "staging", nil),
		CertificateProperties:         certificate(a),
		CachedDependencies:            []*models.CachedDependency{bundle},
	}
	if droplet.Lifecycle == Docker {
		task.Action = models.WrapAction(models.Timeout(inspectImage(p, b, env), p.Staging.Timeout))
		return task, nil
	}
	task.EnvironmentVariables = language()
	task.CachedDependencies = append(task.CachedDependencies, buildpackDependencies(b)...)
	task.Action = models.WrapAction(models.Timeout(models.Serial(
		models.Parallel(stagingDownloads(p, a, b)...),
		buildDroplet(p, b, env),
		uploadDroplet(p, a, b),
	), p.Staging.Timeout))
	return task, nil
}

func stagingVariables(p Platform, a App, d Droplet, memoryMB int32) ([]*models.EnvironmentVariable, error) {
	env, err := appVariables(p, a, memoryMB)
	if err != nil {
		return nil, err
	}
	if d.Lifecycle == Buildpack {
		env = append(env, &models.EnvironmentVariable{Name: "CF_STACK", Value: d.Stack})
	}
	return env, nil
}

// buildpackDependencies puts each buildpack where the builder looks for it: below a hash of its key.
func buildpackDependencies(b Build) []*models.CachedDependency {
	list := make([]*models.CachedDependency, 0, len(b.Buildpacks))
	for _, pack := range b.Buildpacks {
		dependency := &models.CachedDependency{
			Name:     pack.Name,
			From:     pack.URL,
			To:       fmt.Sprintf("/tmp/buildpacks/%016x", xxhash.Sum64String(pack.Key)),
			CacheKey: pack.Key,
		}
		if pack.SHA256 != "" {
			dependency.ChecksumAlgorithm, dependency.ChecksumValue = "sha256", pack.SHA256
		}
		list = append(list, dependency)
	}
	return list
}

func stagingDownloads(p Platform, a App, b Build) []models.ActionInterface {
	downloads := []models.ActionInterface{&models.DownloadAction{
		Artifact:          "app package",
		From:              fmt.Sprintf("%s/internal/v4/packages/%s", p.CC, b.PackageGUID),
		To:                "/tmp/app",
		User:              "vcap",
		ChecksumAlgorithm: "sha256",
		ChecksumValue:     b.PackageSHA256,
	}}
	if b.CacheSHA256 == "" {
		return downloads
	}
	return append(downloads, models.Try(&models.DownloadAction{
		Artifact:          "build artifacts cache",
		From:              fmt.Sprintf("%s/internal/v4/buildpack_cache/%s/%s/download", p.CC, p.Stack, a.GUID),
		To:                "/tmp/cache",
		User:              "vcap",
		ChecksumAlgorithm: "sha256",
		ChecksumValue:     b.CacheSHA256,
	}))
}

func buildDroplet(p Platform, b Build, env []*models.EnvironmentVariable) *models.RunAction {
	keys := make([]string, 0, len(b.Buildpacks))
	for _, pack := range b.Buildpacks {
		keys = append(keys, pack.Key)
	}
	return &models.RunAction{
		Path: "/tmp/lifecycle/builder",
		User: "vcap",
		Args: []string{
			"-buildpackOrder=" + strings.Join(keys, ","),
			"-skipCertVerify=false",
			"-skipDetect=" + strconv.FormatBool(b.SkipDetect),
			"-buildDir=/tmp/app",
			"-outputDroplet=/tmp/droplet",
			"-outputMetadata=" + stagingResult,
			"-outputBuildArtifactsCache=/tmp/output-cache",
			"-buildpacksDir=/tmp/buildpacks",
			"-buildArtifactsCacheDir=/tmp/cache",
		},
		Env:            env,
		ResourceLimits: nofile(p.Staging.NoFile),
	}
}

func uploadDroplet(p Platform, a App, b Build) *models.EmitProgressAction {
	seconds := strconv.Itoa(int(p.Staging.Timeout.Seconds()))
	droplet := url.Values{
		"cc-droplet-upload-uri": {fmt.Sprintf("%s/internal/v4/droplets/%s/upload", p.CC, b.GUID)},
		"timeout":               {seconds},
	}
	cache := url.Values{
		"cc-build-artifacts-upload-uri": {fmt.Sprintf("%s/internal/v4/buildpack_cache/%s/%s/upload", p.CC, p.Stack, a.GUID)},
		"timeout":                       {seconds},
	}
	return models.EmitProgressFor(models.Parallel(
		&models.UploadAction{
			Artifact: "droplet", User: "vcap", From: "/tmp/droplet",
			To: fmt.Sprintf("%s/v1/droplet/%s?%s", p.CCUploader, b.GUID, droplet.Encode()),
		},
		&models.UploadAction{
			Artifact: "build artifacts cache", User: "vcap", From: "/tmp/output-cache",
			To: fmt.Sprintf("%s/v1/build_artifacts/%s?%s", p.CCUploader, a.GUID, cache.Encode()),
		},
	), "Uploading droplet, build artifacts cache...", "Uploading complete", "Uploading failed")
}

// inspectImage reads an image's configuration; nothing is uploaded, as the image itself is the droplet.
func inspectImage(p Platform, b Build, env []*models.EnvironmentVariable) *models.EmitProgressAction {
	args := []string{"-outputMetadataJSONFilename=" + stagingResult, "-dockerRef=" + b.Image}
	if len(p.InsecureRegistries) > 0 {
		args = append(args, "-insecureDockerRegistries="+strings.Join(p.InsecureRegistries, ","))
	}
	return models.EmitProgressFor(&models.RunAction{
		Path:           "/tmp/lifecycle/builder",
		User:           "vcap",
		Args:           args,
		Env:            env,
		ResourceLimits: nofile(p.Staging.NoFile),
	}, "Staging...", "Staging Complete", "Staging Failed")
}
