package driver

import "time"

// Logging says what becomes of what a task prints. The zero value is Nomad's log, without a limit.
type Logging struct {
	// Limit, when set, is how many bytes each second may be printed; the rest is dropped, and that is said. Zero drops all.
	// With a limit, what is printed goes through the shim.
	Limit *int64 `json:"limit,omitempty"`
	// Patience is how long a full log may be without a reader before it is emptied, so that the task does not wait for
	// ever; zero lets it wait.
	Patience time.Duration `json:"patience,omitempty"`
}
