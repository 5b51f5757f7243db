package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

const defaultNoFile = 16384

// rlimits are a process's limits: those of every container, under those that the task asks for, under the process's own.
//
// What we chose ourselves, and what a definition asks for a process, is lowered to what the host has. What a job asks
// for is not: it is to be told. Nor is it raised, although we could, because the operator's limit of the agent is the
// one that the kernel holds a user namespace to.
func rlimits(p driver.Process, l driver.Limits, hard map[string]uint64) ([]specs.POSIXRlimit, error) {
	set := map[string]specs.POSIXRlimit{}
	files := min(cmp.Or(l.NoFile, defaultNoFile), math.MaxInt32)
	set["nofile"] = lowered("nofile", files, hard)
	set["core"] = specs.POSIXRlimit{Type: "RLIMIT_CORE"}
	for _, u := range l.Ulimits {
		if u.Soft > u.Hard {
			return nil, fmt.Errorf("ulimit %s: soft limit %s is above the hard limit %s", u.Name, limitText(u.Soft), limitText(u.Hard))
		}
		if most, known := hard[u.Name]; known && u.Hard > most {
			return nil, fmt.Errorf("ulimit %s: %s is more than the %s that this node's agent may have itself; ask for less, or raise the agent's limit (systemd: Limit%s=)",
				u.Name, limitText(u.Hard), limitText(most), strings.ToUpper(u.Name))
		}
		set[u.Name] = specs.POSIXRlimit{Type: rlimitType(u.Name), Hard: u.Hard, Soft: u.Soft}
	}
	if p.NoFile > 0 {
		set["nofile"] = lowered("nofile", min(p.NoFile, math.MaxInt32), hard)
	}
	if p.NProc > 0 {
		set["nproc"] = lowered("nproc", p.NProc, hard)
	}
	var list []specs.POSIXRlimit
	for _, limit := range set {
		list = append(list, limit)
	}
	slices.SortFunc(list, func(a, b specs.POSIXRlimit) int { return cmp.Compare(a.Type, b.Type) })
	return list, nil
}

// lowered is a limit that is at most the host's.
func lowered(name string, value uint64, hard map[string]uint64) specs.POSIXRlimit {
	if most := hard[name]; most > 0 {
		value = min(value, most)
	}
	return specs.POSIXRlimit{Type: rlimitType(name), Hard: value, Soft: value}
}

func rlimitType(name string) string { return "RLIMIT_" + strings.ToUpper(name) }

func limitText(value uint64) string {
	if value == driver.Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(value, 10)
}

// shmRule sizes /dev/shm; what is in it counts as the container's memory.
func shmRule(spec *specs.Spec, c driver.Container, _ Facts) error {
	switch {
	case c.Limits.ShmBytes < 0:
		return errors.New("size of /dev/shm is negative")
	case c.Limits.ShmBytes == 0:
		return nil
	}
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Destination == "/dev/shm" {
			m.Options = append(slices.Clone(m.Options[:len(m.Options)-1]), "size="+strconv.FormatInt(c.Limits.ShmBytes, 10))
		}
	}
	return nil
}
