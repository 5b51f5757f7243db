package keeper

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/driver"
)

func mountRoot(root driver.RootFS, ids driver.IDRange, dir string) (string, error) {
	for _, n := range []string{"upper", "work", "rootfs"} {
		if err := os.MkdirAll(filepath.Join(dir, n), 0o755); err != nil {
			return "", err
		}
		h, _ := ids.HostID(0)
		os.Chown(filepath.Join(dir, n), int(h), int(h))
	}
	lower := ""
	for _, l := range root.Layers {
		if lower != "" {
			lower = ":" + lower
		}
		lower = l.Dir + lower
	}
	t := filepath.Join(dir, "rootfs")
	return t, unix.Mount("overlay", t, "overlay", 0, "userxattr,lowerdir="+lower+",upperdir="+filepath.Join(dir, "upper")+",workdir="+filepath.Join(dir, "work"))
}
