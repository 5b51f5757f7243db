package driver

import "math"

// Unlimited is a Ulimit's value for no limit.
const Unlimited = math.MaxUint64

// Ulimit limits each process of a container, or each of its users, as setrlimit(2) does.
type Ulimit struct {
	// Name is the kernel's without RLIMIT_, in lower case: nofile.
	Name string `json:"name"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// UlimitNames lists the names that a Ulimit can have.
func UlimitNames() []string {
	return []string{
		"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
		"sigpending", "stack",
	}
}
