package runc

import (
	"fmt"

	"github.com/opencontainers/selinux/go-selinux/label"
)

// Labels makes a container's SELinux labels, of its processes and of its mounts, by options such as "type:container_t";
// the parts that no option names are those of the host's policy for containers, with a category of the container's own.
func Labels(options []string) (process, mount string, err error) {
	if process, mount, err = label.InitLabels(options); err != nil {
		return "", "", fmt.Errorf("SELinux label: %w", err)
	}
	return process, mount, nil
}
