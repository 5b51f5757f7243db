package driver

// Annotations of the task events that the driver emits. Nomad keeps them as the event's details with the last ten
// events of an allocation's task; the bridge reads an instance's life from them.
const (
	// AnnotationPhase is one of the Phase constants.
	AnnotationPhase = "drover_phase"
	// AnnotationInstanceGUID is Diego's instance guid, new with each start of a container.
	AnnotationInstanceGUID = "drover_instance_guid"
	// AnnotationReason is Diego's text for why the work failed (Exit.Reason).
	AnnotationReason = "drover_reason"
	// AnnotationResult is the content of a Task's result file (Exit.Result), as base64.
	AnnotationResult = "drover_result"
	// AnnotationMillis is how long a phase took, in milliseconds.
	AnnotationMillis = "drover_ms"
	// AnnotationDiskUsed and AnnotationDiskLimit are bytes; files have their own.
	AnnotationDiskUsed   = "drover_disk_used"
	AnnotationDiskLimit  = "drover_disk_limit"
	AnnotationFilesUsed  = "drover_files_used"
	AnnotationFilesLimit = "drover_files_limit"
	// AnnotationMountMillis and AnnotationCreateMillis are the parts of PhaseStarted that the shim sees: its root file system
	// was mounted, its container created and begun. AnnotationMillis of that phase is everything since Nomad's call.
	AnnotationMountMillis  = "drover_mount_ms"
	AnnotationCreateMillis = "drover_create_ms"
	// AnnotationAddress is the container's own IP address.
	AnnotationAddress = "drover_address"
)

// Phases in the life of a container, in order. Started is sent for every container, Healthy only for an LRP (once its
// checks passed, or at once when it has none), Ended for every container that ran an action tree. Disk comes in between,
// when a task is near its limit of disk space or beyond it.
const (
	PhaseResolve = "resolve"
	PhasePull    = "pull"
	PhaseUnpack  = "unpack"
	PhaseFetch   = "fetch"
	PhaseStarted = "started"
	PhaseHealthy = "healthy"
	PhaseDisk    = "disk"
	PhaseEnded   = "ended"
	// PhaseWarning is no phase: something is not as one would expect, and the container runs nevertheless.
	PhaseWarning = "warning"
)
