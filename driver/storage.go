package driver

// Owner is a user of the container to whom the files belong that an image gave to root. In exchange, those that the
// image gave to that user belong to the container's root: every id on disk has one place in the container.
type Owner struct {
	// User is a name or number as in Process; the shim looks up who that is in the image's own accounts: UID and GID.
	User string `json:"user"`
	UID  uint32 `json:"-"`
	GID  uint32 `json:"-"`
	// Layers is how many of the lowest layers are the image's. Those above hold what belongs to the right user already.
	Layers int `json:"layers"`
}

// How mounts that are made later come through a mount: from the host into the container, or in both directions.
const (
	PropagationSlave  = "slave"
	PropagationShared = "shared"
)

// Tmpfs is a file system in memory, which counts as the container's memory.
type Tmpfs struct {
	SizeBytes int64 `json:"size_bytes"`
	// Mode is that of its root directory.
	Mode uint32 `json:"mode"`
}

// Device is a device of the host that the container may use. Everybody in it may; Access says what for.
type Device struct {
	// Source is the host's node, or a directory of nodes.
	Source string `json:"source"`
	Target string `json:"target"`
	// Access is made of r, w and m: read, write, make nodes.
	Access string `json:"access"`
}
