package image

import (
	"fmt"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// platform is what an image shall run on. The zero value is this node.
type platform struct{ arch, variant string }

// parsePlatform reads a platform such as linux/arm64/v8; the variant may be missing.
func parsePlatform(text string) (platform, error) {
	if text == "" {
		return platform{}, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[1] == "" {
		return platform{}, fmt.Errorf("%w: platform %q is not of the form linux/ARCHITECTURE[/VARIANT]", ErrBadReference, text)
	}
	if parts[0] != "linux" {
		return platform{}, fmt.Errorf("%w: platform %q: this node runs linux, not %s", ErrBadReference, text, parts[0])
	}
	want := platform{arch: parts[1]}
	if len(parts) == 3 {
		want.variant = parts[2]
	}
	return want, nil
}

// CheckPlatform says what is wrong with a platform.
func CheckPlatform(text string) error {
	_, err := parsePlatform(text)
	return err
}

func (w platform) String() string {
	arch := w.arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	if w.variant == "" {
		return "linux/" + arch
	}
	return "linux/" + arch + "/" + w.variant
}

// presets are the variants that an architecture has where none is named.
func presets() map[string]string { return map[string]string{"arm64": "v8", "arm": "v7", "amd64": "v1"} }

// rank says how well what an index offers fits: 0 not at all.
func (w platform) rank(offer *v1.Platform) int {
	arch := w.arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	if offer.OS != "linux" || offer.Architecture != arch {
		return 0
	}
	want := w.variant
	if want == "" {
		want = presets()[arch]
	}
	switch {
	case offer.Variant == want:
		return 4
	case offer.Variant == "":
		return 3
	case want < offer.Variant: // a newer processor's
		return 0
	}
	return 2 // an older processor's: v6 runs on v7
}

// choose picks an index's entry. One that names no platform is for all.
func (w platform) choose(entries []v1.Descriptor) (v1.Hash, error) {
	var offered []string
	var best v1.Hash
	rank := 0
	for _, entry := range entries {
		r := 1
		if entry.Platform != nil {
			r = w.rank(entry.Platform)
			offered = append(offered, entry.Platform.String())
		}
		if r > rank {
			best, rank = entry.Digest, r
		}
	}
	if rank == 0 {
		return v1.Hash{}, fmt.Errorf("%w: there is no image for %s, only for %.500s", ErrNotFound, w, strings.Join(offered, ", "))
	}
	return best, nil
}

// check refuses an image for another platform than the one that was asked for. It returns the image's where that is
// another than this node's, which needs an emulator.
func (w platform) check(config *v1.ConfigFile) (string, error) {
	want := w.arch
	if want == "" {
		want = runtime.GOARCH
	}
	if system, arch := config.OS, config.Architecture; system != "" && system != "linux" || arch != "" && arch != want {
		return "", fmt.Errorf("%w: the image is for %s/%s, not for %s; the option platform chooses another", ErrNotFound, system, arch, w)
	}
	if want != runtime.GOARCH {
		return w.String(), nil
	}
	return "", nil
}
