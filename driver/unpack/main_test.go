package unpack

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Arguments by which the tests start their own binary as the confined child.
const (
	asHelper = "unpack-helper" // as the driver does
	asPivot  = "unpack-pivot"  // only to say whether the destination can become the root mount
	asHang   = "unpack-hang"   // to read its input and never end
	asWorld  = "unpack-world"  // to live in a mount namespace with a file system that nobody else sees
)

func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	switch os.Args[1] {
	case asHelper:
		os.Exit(Main(os.Args[2:], os.Stdin))
	case asPivot:
		if err := pivot(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case asWorld:
		if err := unix.Mount("tmpfs", os.Args[2], "tmpfs", 0, "mode=0755,uid="+os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, _ = io.WriteString(os.Stdout, "ready\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case asHang:
		select {}
	default:
		os.Exit(m.Run())
	}
}
