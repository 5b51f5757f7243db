package image

import (
	"context"
	"fmt"
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover/driver"
	"drover/driver/unpack"
)

// asHelper is the argument by which the tests start their own binary as the confined child.
const asHelper = "unpack-helper"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asHelper {
		os.Exit(unpack.Main(os.Args[2:], os.Stdin))
	}
	if len(os.Args) > 3 && os.Args[1] == asPuller {
		os.Exit(pullForEver(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// asPuller is the argument by which the tests start their own binary to pull an image, and to be killed at it.
const asPuller = "image-puller"

func pullForEver(dir, ref string) int {
	s, err := Open(Options{Dir: dir, Unpacker: []string{"/proc/self/exe", asHelper}, Stored: driver.IDRange{Host: 1e9, Size: 65536}})
	if err == nil {
		_, err = s.Pull(context.Background(), Request{Ref: ref}, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func mustHash(tb testing.TB, digest string) v1.Hash {
	tb.Helper()
	hash, err := v1.NewHash(digest)
	if err != nil {
		tb.Fatal(err)
	}
	return hash
}
