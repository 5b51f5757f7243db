package unpack

import (
	"fmt"
	"os"
	"testing"
)

// Arguments by which the tests start their own binary as the confined child.
const (
	asHelper = "unpack-helper" // as the driver does
	asPivot  = "unpack-pivot"  // only to say whether the destination can become the root mount
	asHang   = "unpack-hang"   // to read its input and never end
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
	case asHang:
		select {}
	default:
		os.Exit(m.Run())
	}
}
