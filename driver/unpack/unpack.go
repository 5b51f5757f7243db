// Package unpack extracts archives and image layers that nobody vouches for.
//
// Run starts a child that owns nothing: it lives in a user namespace that maps only the ids which the files shall
// have, has a mount namespace whose root is the destination, and process, network, IPC and host name namespaces with
// nothing in them. It reads the archive from standard input and writes files; what it cannot name it cannot harm. The
// child is a subcommand of the shim, which calls Main.
//
//	stats, err := unpack.Run(ctx, []string{shim, "unpack"}, unpack.Job{
//		Dest: staging, IDs: stored, Format: unpack.Auto, Whiteouts: true}, body)
//
// Inside the child every name is resolved by openat2 against the destination, so that a second fence stands where the
// first one cannot be built (a destination in another mount namespace gets a chroot and no mount).
//
// Promised: names that lead out of the destination stop the job with ErrEscapes; archives that grow beyond the job's
// limits stop it with ErrTooLarge; a full disk is ErrFull; a truncated or malformed archive is ErrCorrupt. Garbage
// behind a complete archive is ignored. Modes (with setuid, in ids that the host does not use), times, symbolic and
// hard links, FIFOs, sparse files, file capabilities and user extended attributes are kept. Devices are left out and
// counted, and so are attributes that mean something to overlayfs. Ids outside the map become nobody's (65534).
// After an error the destination holds a part of the archive: it is the caller's to remove.
package unpack

import (
	"errors"
	"os"

	"drover/driver"
)

// Formats of archives. The zero value means Auto.
const (
	Auto   = "auto"
	Tar    = "tar"
	TarGz  = "tgz"
	TarZst = "tar.zst"
	Zip    = "zip"
)

// Errors of Run, to be recognised with errors.Is.
var (
	// ErrEscapes is an entry that names a place outside the destination.
	ErrEscapes = errors.New("archive entry leads out of its directory")
	// ErrTooLarge is an archive that exceeds the job's limits.
	ErrTooLarge = errors.New("archive is larger than allowed")
	// ErrFull is a full disk or an exhausted quota.
	ErrFull = errors.New("no space left on the disk")
	// ErrCorrupt is an archive that is truncated, malformed or of another format.
	ErrCorrupt = errors.New("archive is damaged")
)

// Defaults of Job's limits.
const (
	DefaultMaxBytes   = 10 << 30
	DefaultMaxEntries = 1_000_000
)

const (
	// identitySize is how many ids are mapped to themselves when a job names no range.
	identitySize = 65536
	// nobody owns what belongs to ids that are not mapped.
	nobody = 65534
	// maxDepth bounds the directories in an entry's name.
	maxDepth = 256
)

// Owner is a user and a group as the container counts them.
type Owner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Job says what to unpack and where.
type Job struct {
	// Dest is the destination directory. Run gives it to the container's root.
	Dest string `json:"-"`
	// DestFD, when set, is used instead of Dest: an open directory, which keeps its owner. It may be in another mount
	// namespace, such as a running container's.
	DestFD *os.File `json:"-"`
	// IDs is the range that owns what is written: container id n belongs to IDs.Host+n. A zero range writes host ids.
	IDs driver.IDRange `json:"ids"`
	// Format is one of the format constants; empty means Auto, by the archive's first bytes.
	Format string `json:"format,omitempty"`
	// Whiteouts reads the names that begin with .wh. as an image layer's deletions, and makes them overlayfs's (for
	// mounts with userxattr). Symbolic links on an entry's way are then resolved as if the destination were /; in
	// other archives an absolute link on the way is an escape.
	Whiteouts bool `json:"whiteouts,omitempty"`
	// Owner, when set, owns every entry, whatever the archive says.
	Owner *Owner `json:"owner,omitempty"`
	// Prefix is a directory below the destination that entries are put in. It is made when missing, and belongs to Owner
	// then; its parents belong to root, but for those below /home, which belong to Owner, and /tmp is for everybody.
	// Links on the way are resolved as if the destination were /.
	Prefix string `json:"prefix,omitempty"`
	// MaxBytes limits the inflated archive, and the sum of all files; zero means DefaultMaxBytes.
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// MaxEntries limits files and directories; zero means DefaultMaxEntries.
	MaxEntries int64 `json:"max_entries,omitempty"`
}

// Stats is what a job has done.
type Stats struct {
	// Entries were written, Skipped were not because they are devices or of unknown kinds.
	Entries int64 `json:"entries"`
	Skipped int64 `json:"skipped,omitempty"`
	// Bytes is the sum of all files' sizes.
	Bytes int64 `json:"bytes"`
	// DiffID is "sha256:" and the digest of the inflated archive; of tar formats only.
	DiffID string `json:"diff_id,omitempty"`
}

// withDefaults fills in what a job left empty.
func (j Job) withDefaults() Job {
	if j.Format == "" {
		j.Format = Auto
	}
	if j.MaxBytes <= 0 {
		j.MaxBytes = DefaultMaxBytes
	}
	if j.MaxEntries <= 0 {
		j.MaxEntries = DefaultMaxEntries
	}
	if j.IDs.Size == 0 {
		j.IDs = driver.IDRange{Host: 0, Size: identitySize}
	}
	return j
}
