// Package driver says what a container task is: the nouns that the Nomad plugin, the image store, the
// root file systems and the per-task shim share, and the form in which the bridge hands over secret run info.
//
// A task's way through the packages below this one:
//
//	plugin  decodes the jobspec's config block into a task's wish
//	task    makes it a Container: image and droplet layers, limits, mounts, network, log files
//	shim    mounts the layers, builds the OCI spec (bundle), starts it (runc), runs its actions (action),
//	        and keeps its exit status on disk, whoever else dies
//
// This package imports the standard library only.
package driver

import "time"

// Version is the release that this program was built from; the linker sets it (see GNUmakefile).
var Version = "dev"

// VcapID is the uid and gid of user vcap in every Cloud Foundry stack.
const VcapID = 2000

// IDRange is a run of host ids that a user namespace maps to container ids 0, 1, … Size-1. A zero Size means no
// user namespace: container ids are host ids.
type IDRange struct {
	Host uint32 `json:"host"`
	Size uint32 `json:"size"`
	// Identity maps root alone to Host, and every other id to itself, as Garden does.
	Identity bool `json:"identity,omitempty"`
}

// HostID returns the host id of a container id, and whether the range maps it.
func (r IDRange) HostID(id uint32) (uint32, bool) {
	if r.Size == 0 || r.Identity && id > 0 {
		return id, r.Size == 0 || id < r.Size
	}
	return r.Host + id, id < r.Size
}

// Layer is one unpacked, read-only directory of a root file system. Files in it are owned, on disk, by the ids of
// Stored: a file that the image gave to uid 0 belongs to host uid Stored.Host.
type Layer struct {
	// Dir is an absolute host path. Its tree is never changed once it is there.
	Dir string `json:"dir"`
	// Stored is the id range that the tree was unpacked with; a zero range for a plain directory of host-owned files.
	Stored IDRange `json:"stored"`
}

// RootFS is what a container's / is made of.
type RootFS struct {
	// Layers, lowest first; at least one.
	Layers []Layer `json:"layers"`
	// ReadOnly makes / read-only inside the container.
	ReadOnly bool `json:"read_only,omitempty"`
	// Owner, when set, has root's files of the image.
	Owner *Owner `json:"owner,omitempty"`
	// SetUID lets set-user-id bits of files count.
	SetUID bool `json:"set_uid,omitempty"`
	// MountLabel is the SELinux label of all files; empty leaves them those that they have.
	MountLabel string `json:"mount_label,omitempty"`
}

// Mount binds a host path into the container, or memory.
type Mount struct {
	Source string `json:"source"`
	// Base, when set, is a directory above Source below which nothing on the way is to be a link: others can write there.
	Base     string `json:"base,omitempty"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// NoExec, NoSuid and NoDev are added to the mount's options.
	NoExec bool `json:"no_exec,omitempty"`
	// IDMapped asks that container ids are stored as they are (vcap's files belong to 2000 on the host's disk)
	// instead of shifted into the container's range. Where a file system cannot, the mount is made plain, and an event says so.
	IDMapped bool `json:"id_mapped,omitempty"`
	// Counted adds what is below Source to what the task may write (Container.Disk).
	Counted bool `json:"counted,omitempty"`
	// Recursive brings what is mounted below Source too.
	Recursive bool `json:"recursive,omitempty"`
	// Propagation is empty for none, or one of the Propagation constants.
	Propagation string `json:"propagation,omitempty"`
	// Create makes the directories of Source below Base that are missing.
	Create bool `json:"create,omitempty"`
	// Tmpfs mounts memory instead of Source.
	Tmpfs *Tmpfs `json:"tmpfs,omitempty"`
	// Image mounts the root file system's own directory at Target instead of Source: it stays writable when / is not.
	Image bool `json:"image,omitempty"`
}

// Limits are a container's resource limits. Zero means unlimited, save for PIDs, which is always limited.
type Limits struct {
	// MemoryBytes is the hard limit; swap is never given on top of it.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	// MemoryReservationBytes is the soft limit (memory.low on cgroup v2).
	MemoryReservationBytes int64 `json:"memory_reservation_bytes,omitempty"`
	// CPUShares are cgroup v1 shares (2..262144), converted for v2.
	CPUShares uint64 `json:"cpu_shares,omitempty"`
	// CPUQuota and CPUPeriod are microseconds.
	CPUQuota  int64  `json:"cpu_quota,omitempty"`
	CPUPeriod uint64 `json:"cpu_period,omitempty"`
	// CPUSet is a list such as "0-2,5"; with a CpusetCgroup, that of the cores which are reserved for the task.
	CPUSet string `json:"cpu_set,omitempty"`
	PIDs   int64  `json:"pids"`
	// NoFile is the default limit of open files of each process.
	NoFile uint64 `json:"no_file,omitempty"`
	// Ulimits are those of each process that the task asks for; its nofile takes NoFile's place.
	Ulimits []Ulimit `json:"ulimits,omitempty"`
	// ShmBytes is the size of /dev/shm; zero is 64 MiB.
	ShmBytes int64 `json:"shm_bytes,omitempty"`
	// OOMScoreAdj is how much sooner than others the container's processes are killed when the host's memory runs out.
	OOMScoreAdj int `json:"oom_score_adj,omitempty"`
}

// Process is a program to be run in a container.
type Process struct {
	Args []string `json:"args"`
	// Env holds NAME=value entries; of duplicates the last wins.
	Env []string `json:"env"`
	// Dir is the working directory; empty means the user's home, and / where that is missing.
	Dir string `json:"dir,omitempty"`
	// User is a name or number, with an optional ":group", resolved in the container's own /etc/passwd and
	// /etc/group; empty means root.
	User string `json:"user,omitempty"`
	// NoFile overrides the container's limit of open files when positive.
	NoFile uint64 `json:"no_file,omitempty"`
	// NProc limits the processes of the user that this one runs as, when positive.
	NProc uint64 `json:"n_proc,omitempty"`
}

// Container is everything the shim needs in order to run one task. It is written to the task's state directory as
// JSON (mode 0600: it holds the environment), and read by nobody but the shim.
type Container struct {
	// ID matches [A-Za-z0-9_.-]+ and is unique on the node for each start of a task.
	ID string `json:"id"`
	// Hostname is the UTS host name.
	Hostname string `json:"hostname"`
	RootFS   RootFS `json:"root_fs"`
	// IDs is the container's user namespace.
	IDs    IDRange `json:"ids"`
	Mounts []Mount `json:"mounts,omitempty"`
	// Devices are nodes beside those that every container has.
	Devices []Device `json:"devices,omitempty"`
	Limits  Limits   `json:"limits"`
	Disk    Disk     `json:"disk,omitzero"`
	// Cgroup is the task's cgroup as Nomad made it, relative to the cgroup mount ("/nomad/<scope>" on v1,
	// "/nomad.slice/share.slice/<scope>" on v2); empty makes one of our own.
	Cgroup string `json:"cgroup,omitempty"`
	// CpusetCgroup is the absolute path of the v1 cpuset cgroup that processes are moved to; empty on v2.
	CpusetCgroup string `json:"cpuset_cgroup,omitempty"`
	// AllocDir is the allocation's directory on the host: when it is gone, Nomad has forgotten the task.
	AllocDir string `json:"alloc_dir,omitempty"`
	// NetNS is the path of the network namespace to join; empty shares the host's.
	NetNS string `json:"net_ns,omitempty"`
	// Egress says what the container may reach; nil means whatever its network reaches.
	Egress *Egress `json:"egress,omitempty"`
	// Hosts and ResolvConf are the contents of /etc/hosts and /etc/resolv.conf; empty leaves the image's own.
	Hosts      string `json:"hosts,omitempty"`
	ResolvConf string `json:"resolv_conf,omitempty"`
	// Stdout and Stderr are paths of Nomad's log fifos, or /dev/null.
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// Logging is what becomes of them.
	Logging Logging `json:"logging,omitzero"`
	// Process is the container's process 1 when Work is nil.
	Process Process `json:"process"`
	// Init puts a process 1 before Process, which reaps what others leave and passes signals on. Work always has one.
	Init bool `json:"init,omitempty"`
	// TTY gives Process a terminal. What it prints there goes to Stdout.
	TTY bool `json:"tty,omitempty"`
	// Interactive keeps Process's standard input open. Nobody writes to it.
	Interactive bool `json:"interactive,omitempty"`
	// Work, when set, is run instead of Process, as processes beside a reaping process 1.
	Work *Work `json:"work,omitempty"`
	// Seccomp is "default" or "off".
	Seccomp string `json:"seccomp,omitempty"`
	// Security is how it differs from the default.
	Security Security `json:"security,omitzero"`
	// Filters is the node's directory of compiled seccomp profiles; empty compiles them for each process.
	Filters string `json:"filters,omitempty"`
}

// Work is Diego's work for one container: an action tree with what belongs to it.
type Work struct {
	Info RunInfo `json:"info"`
	// Env is put under the tree's own environment: image environment first, then INSTANCE_GUID and the like.
	Env []string `json:"env"`
	// InstanceEnv is appended behind each process's environment: CF_INSTANCE_IP and the like.
	InstanceEnv []string `json:"instance_env"`
	// Done lists the download destinations that are already part of RootFS, as "FROM TO" pairs joined by a space;
	// the shim skips these Download actions.
	Done []string `json:"done,omitempty"`
	// TLS names the platform's credentials for downloads, uploads; paths on the host, never seen in the container.
	TLS TLSFiles `json:"tls"`
}

// TLSFiles names PEM files of a mutual TLS client. All empty means the system's roots and no client certificate.
type TLSFiles struct {
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// Exit is how a container ended. The shim writes it to exit.json (fsync, then rename) before anything else hears of it.
type Exit struct {
	Code int `json:"code"`
	// Signal is the number of the signal that ended the process, or 0.
	Signal int `json:"signal,omitempty"`
	// OOMKilled is true when the kernel killed a process of the container for want of memory.
	OOMKilled bool `json:"oom_killed,omitempty"`
	// DiskExceeded says why the task was stopped for what it had written; empty when it was not.
	DiskExceeded string `json:"disk_exceeded,omitempty"`
	// Reason is Diego's text for a failed action tree ("APP/PROC/WEB: Exited with status 3"), at most 1024 bytes;
	// empty when the tree succeeded or there was none.
	Reason string `json:"reason,omitempty"`
	// Result is the content of the task's result file, if it had one and succeeded; at most 50 KiB.
	Result string `json:"result,omitempty"`
	// Started is when the container was created, Ended when its last process had gone.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
}

// ImageConfig is the part of an image's configuration that decides how it is run.
type ImageConfig struct {
	Env          []string `json:"env,omitempty"`
	User         string   `json:"user,omitempty"`
	Entrypoint   []string `json:"entrypoint,omitempty"`
	Cmd          []string `json:"cmd,omitempty"`
	WorkingDir   string   `json:"working_dir,omitempty"`
	StopSignal   string   `json:"stop_signal,omitempty"`
	ExposedPorts []string `json:"exposed_ports,omitempty"`
	// Volumes are directories that the image declares to be written to.
	Volumes []string `json:"volumes,omitempty"`
}
