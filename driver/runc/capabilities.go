package runc

import (
	"fmt"
	"strings"

	"github.com/moby/sys/capability"
)

// BoundingCapabilities lists the capabilities that this process, and so every container, can have at most.
func BoundingCapabilities() ([]string, error) {
	self, err := capability.NewPid2(0)
	if err == nil {
		err = self.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	var names []string
	for _, c := range capability.ListKnown() {
		if self.Get(capability.BOUNDING, c) && self.Get(capability.PERMITTED, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names, nil
}
