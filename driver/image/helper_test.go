package image

import (
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover/driver/unpack"
)

// asHelper is the argument by which the tests start their own binary as the confined child.
const asHelper = "unpack-helper"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asHelper {
		os.Exit(unpack.Main(os.Args[2:], os.Stdin))
	}
	os.Exit(m.Run())
}

func mustHash(tb testing.TB, digest string) v1.Hash {
	tb.Helper()
	hash, err := v1.NewHash(digest)
	if err != nil {
		tb.Fatal(err)
	}
	return hash
}
