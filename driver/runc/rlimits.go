package runc

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// rlimitNumbers are the kernel's numbers of the limits that an OCI spec can name.
var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

func rlimit(name string) (int, error) {
	number, known := rlimitNumbers[name]
	if !known {
		return 0, fmt.Errorf("resource limit %s is not supported", name)
	}
	return number, nil
}

// HardLimits returns the hard limits of this process, by the names of driver.UlimitNames.
func HardLimits() (map[string]uint64, error) {
	limits := map[string]uint64{}
	for _, name := range driver.UlimitNames() {
		var limit unix.Rlimit
		if err := unix.Getrlimit(rlimitNumbers["RLIMIT_"+strings.ToUpper(name)], &limit); err != nil {
			return nil, fmt.Errorf("read limit %s: %w", name, err)
		}
		limits[name] = limit.Max
	}
	return limits, nil
}

// RaiseLimits lifts this process's soft limits of the named resources to its hard ones. The kernel holds all users of a
// user namespace together to the soft limits of whoever made it, whatever limits they have of their own.
func RaiseLimits(ulimits []driver.Ulimit) error {
	var errs []error
	for _, u := range ulimits {
		switch u.Name {
		case "memlock", "msgqueue", "nproc", "sigpending":
			number := rlimitNumbers["RLIMIT_"+strings.ToUpper(u.Name)]
			var limit unix.Rlimit
			err := unix.Getrlimit(number, &limit)
			if limit.Cur = limit.Max; err == nil {
				err = unix.Setrlimit(number, &limit)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("raise limit %s: %w", u.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
