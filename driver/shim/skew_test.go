package shim

import (
	"errors"
	"testing"
)

func TestHello_agreed(t *testing.T) {
	for _, row := range []struct {
		shim   string
		says   hello
		agreed bool
	}{
		{"the first release, which did not say", hello{Protocol: 1}, true},
		{"the same", hello{Protocol: ProtocolVersion, Oldest: oldestProtocol}, true},
		{"a newer one that still understands us", hello{Protocol: 9, Oldest: 1}, true},
		{"a newer one that does not", hello{Protocol: 9, Oldest: ProtocolVersion + 1}, false},
		{"an older one than we understand", hello{Protocol: oldestProtocol - 1, Oldest: oldestProtocol - 1}, false},
	} {
		t.Run(row.shim, func(t *testing.T) {
			if err := row.says.agreed(); (err == nil) != row.agreed || err != nil && !errors.Is(err, errSkew) {
				t.Errorf("got %v, want agreed %v", err, row.agreed)
			}
		})
	}
}
