package driver

// Disk is how much a task may write to the host's disks: to its root file system's writable layer, and below the mounts
// that are Counted.
type Disk struct {
	// Bytes and Inodes are the limits; zero is none.
	Bytes  int64 `json:"bytes,omitempty"`
	Inodes int64 `json:"inodes,omitempty"`
	// Project is the project id by which the kernel holds the task to them; zero where the file system cannot, and the
	// shim measures.
	Project uint32 `json:"project,omitempty"`
}
