package task

import (
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func download(to, user, sum string) *models.DownloadAction {
	d := &models.DownloadAction{From: "https://h/" + to, To: to, User: user}
	if sum != "" {
		d.ChecksumAlgorithm, d.ChecksumValue = "sha256", sum
	}
	return d
}

func run() *models.RunAction { return &models.RunAction{Path: "/bin/true", User: "vcap"} }

func TestHeadDownloads(t *testing.T) {
	a, b, c := download("a", "vcap", "1"), download("b", "vcap", "2"), download("c", "vcap", "3")
	for _, row := range []struct {
		promise string
		action  models.ActionInterface
		want    []string
	}{
		{"takes a lone download", a, []string{"a"}},
		{"takes downloads up to the first other action", models.Serial(a, b, run(), c), []string{"a", "b"}},
		{"looks through timeouts", models.Timeout(models.Serial(a, run()), 1), []string{"a"}},
		{"looks through series of series", models.Serial(models.Serial(a), b, run()), []string{"a", "b"}},
		{"takes all of a parallel download", models.Serial(models.Parallel(a, b), c, run()), []string{"a", "b", "c"}},
		{"takes downloads beside others, but none after them", models.Serial(models.Parallel(a, models.Try(b)), c, run()), []string{"a"}},
		{"takes none after a run", models.Serial(run(), a), nil},
		{"leaves tries to the shim", models.Try(a), nil},
		{"leaves codependents to the shim", models.Codependent(a, run()), nil},
	} {
		t.Run(row.promise, func(t *testing.T) {
			var got []string
			for _, d := range headDownloads(models.WrapAction(row.action)) {
				got = append(got, d.To)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := headDownloads(nil); got != nil {
		t.Errorf("no action: got %v", got)
	}
	deep := models.WrapAction(a)
	for range 100 {
		deep = models.WrapAction(&models.TimeoutAction{Action: deep})
	}
	if got := headDownloads(deep); got != nil {
		t.Errorf("a tree of 100 levels: got %v", got)
	}
}

func TestDownloadArchive(t *testing.T) {
	for _, row := range []struct {
		promise string
		action  *models.DownloadAction
		target  string // empty: left to the shim
		owner   uint32
	}{
		{"puts . into vcap's home", download(".", "vcap", "1"), "/home/vcap", 2000},
		{"puts a relative path below vcap's home", download("x/y", "vcap", "1"), "/home/vcap/x/y", 2000},
		{"does not leave vcap's home", download("../../etc", "vcap", "1"), "/home/vcap/etc", 2000},
		{"takes an absolute path", download("/tmp/app", "vcap", "1"), "/tmp/app", 2000},
		{"takes root's absolute path", download("/tmp/app", "root", "1"), "/tmp/app", 0},
		{"leaves what has no checksum", download("/tmp/app", "vcap", ""), "", 0},
		{"leaves other users, who are known in the container only", download("/tmp/app", "node", "1"), "", 0},
		{"leaves root's home, which is known in the container only", download(".", "root", "1"), "", 0},
	} {
		t.Run(row.promise, func(t *testing.T) {
			got, ok := downloadArchive(row.action)
			if ok != (row.target != "") || got.target != row.target || got.owner != row.owner {
				t.Errorf("got %v %s owned by %d, want %s owned by %d", ok, got.target, got.owner, row.target, row.owner)
			}
			if want := row.action.From + " " + row.action.To; ok && got.done != want {
				t.Errorf("the shim is told %q, want %q", got.done, want)
			}
		})
	}
}

func TestArchives_ofAnLRP(t *testing.T) {
	lrp := &models.DesiredLRP{
		CachedDependencies: []*models.CachedDependency{{Name: "lifecycle", From: "http://f/l.tgz", To: "/tmp/lifecycle", CacheKey: "k"}},
		LegacyDownloadUser: "vcap",
		ImageLayers: []*models.ImageLayer{{
			Name: "droplet", Url: "https://h/d", DestinationPath: "/home/vcap", LayerType: models.LayerTypeExclusive,
			MediaType: models.MediaTypeTgz, DigestAlgorithm: models.DigestAlgorithmSha256, DigestValue: "ab",
		}},
		Setup: models.WrapAction(models.Serial(download(".", "vcap", "cd"))),
	}
	raw, err := lrp.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	def, err := decodeDefinition(driver.RunInfo{Kind: driver.KindLRP, GUID: "g", Definition: raw})
	if err != nil {
		t.Fatal(err)
	}
	want := []archive{
		{what: "lifecycle", from: "http://f/l.tgz", target: "/tmp/lifecycle", format: "auto", cacheKey: "k"},
		{what: "droplet", from: "https://h/d", target: "/home/vcap", format: "tgz", checksum: "sha256:ab", owner: 2000},
		{what: "download", from: "https://h/.", target: "/home/vcap", format: "auto", checksum: "sha256:cd", owner: 2000, done: "https://h/. ."},
	}
	if diff := cmp.Diff(want, def.archives(), cmp.AllowUnexported(archive{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecodeDefinition_namesWhatIsIgnored(t *testing.T) {
	lrp := &models.DesiredLRP{
		Privileged: true, VolumeMounts: []*models.VolumeMount{{}},
		VolumeMountedFiles: []*models.File{{}}, Sidecars: []*models.Sidecar{{}}, DiskMb: 1,
		LogRateLimit: &models.LogRateLimit{BytesPerSecond: 5}, CertificateProperties: &models.CertificateProperties{},
	}
	want := []string{"privileged", "volume_mounts", "volume_mounted_files", "sidecars", "certificate_properties"}
	if diff := cmp.Diff(want, lrpDefinition(lrp).ignored); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if limit := lrpDefinition(lrp).logLimit; limit == nil || *limit != 5 {
		t.Errorf("log limit %v, want 5", limit)
	}
	if got := taskDefinition(&models.TaskDefinition{LogRateLimit: &models.LogRateLimit{BytesPerSecond: -1}}).ignored; got != nil {
		t.Errorf("an empty task definition: %v", got)
	}
}
