package image

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestPlatform_choose(t *testing.T) {
	t.Parallel()
	offer := func(list string) (entries []v1.Descriptor) {
		for n, text := range strings.Fields(list) {
			entry := v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: string(rune('0' + n))}}
			if text != "-" {
				entry.Platform, _ = v1.ParsePlatform(text)
			}
			entries = append(entries, entry)
		}
		return entries
	}
	here := "linux/" + runtime.GOARCH
	for _, row := range []struct{ want, offers, chosen string }{
		{"", "linux/s390x " + here, "1"},
		{"", "unknown/unknown -", "1"},
		{"", "- " + here, "1"},
		{"", "windows/" + runtime.GOARCH, ""},
		{"linux/arm64", "linux/arm64/v9 linux/arm64/v8", "1"},
		{"linux/arm64/v8", "linux/arm/v7 linux/arm64", "1"},
		{"linux/arm", "linux/arm/v5 linux/arm/v7", "1"},
		{"linux/arm/v6", "linux/arm/v5 linux/arm/v7", "0"},
		{"linux/amd64", "linux/amd64/v3 linux/amd64", "1"},
		{"linux/amd64/v3", "linux/amd64 linux/amd64/v3", "1"},
		{"linux/riscv64", "linux/amd64 linux/arm64", ""},
	} {
		want, err := parsePlatform(row.want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := want.choose(offer(row.offers))
		if got.Hex != row.chosen || (err != nil) != (row.chosen == "") || err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of %s: got %q, %v", row.want, row.offers, got.Hex, err)
		}
	}
}

func TestParsePlatform_refuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"windows/amd64", "linux", "linux/", "amd64", "linux/arm/v7/x", "/"} {
		if _, err := parsePlatform(text); !errors.Is(err, ErrBadReference) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestTrusts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		registry, host string
		want           bool
	}{
		{"index.docker.io", "auth.docker.io", true},
		{"registry.example.com", "registry.example.com", true},
		{"registry.gitlab.com", "gitlab.com", true},
		{"registry.example.com:5000", "login.example.com", true},
		{"registry.example.com", "example.com.evil.org", false},
		{"registry.example.com", "evilexample.com", false},
		{"registry.example.co.uk", "other.co.uk", false},
		{"one.github.io", "two.github.io", false},
		{"10.0.0.1:5000", "10.0.0.1:5001", true},
		{"10.0.0.1:5000", "10.0.0.2:5000", false},
		{"127.0.0.1:5000", "localhost:5000", false},
		{"registry.example.com", "169.254.169.254", false},
	} {
		if got := trusts(row.registry, row.host); got != row.want {
			t.Errorf("%s, to %s: %v", row.registry, row.host, got)
		}
	}
}
