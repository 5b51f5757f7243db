// Package image keeps what containers are made of on a node: the layers of images, and archives such as droplets,
// lifecycles and buildpacks, each unpacked once.
//
//	store, err := image.Open(image.Options{Dir: dir, Unpacker: []string{shim, "unpack"}, Stored: ids, Log: log})
//	img, err := store.Pull(ctx, image.Request{Ref: "registry.example.com/team/app:1", Auth: auth}, progress)
//	droplet, err := store.Fetch(ctx, image.Archive{URL: url, Checksum: sum, Prefix: "/home/vcap"}, progress)
//	err = store.Lease(containerID, append(img.Layers, droplet))
//
// Bytes from outside are read once: they are hashed on their way to a confined child that unpacks them (package
// unpack), below staging/, and get their name only when every digest was right. So what has a name is whole, also
// after a SIGKILL, and what was left over is swept by the next Open. Whoever asks for the same thing at the same time
// waits for one transfer; it is given up when nobody waits any more. A transfer that is cut goes on where it was, within
// the process: no second copy of the bytes is kept, so a new process begins with the layers that are not whole.
//
// On disk, below Options.Dir:
//
//	blobs/sha256/<hex>              manifests, indexes and configurations; verified whenever they are read
//	layers/<first id>/sha256/<hex>  layers by diff id, for each range of ids that they were stored with
//	archives/<hex>                  archives, by content and by where and to whom they are unpacked
//	sources/<hex>.json              what is known of an archive's checksum or URL: its directory, ETag and date
//	leases/<owner>.json             layers in use
//	tags/<hex>.json                 what tags meant when their registries last told
//	notes/<name>                    how large a tree is, and, as the file's time, when it was last used
//	lock, key                       keeps collections and users apart; seals names of which a part is secret
//	staging/                        unfinished work, of running processes only
//
// A reference with a digest whose content is here needs no network. A tag is always asked for; when the registry does
// not answer, it means what it last meant to the same user. Errors name the image
// or the archive, what happened, and what to do; they hold no query and no password of a URL. Recognise them with
// errors.Is and IsTemporary.
//
// Credentials go to the registry that they are for, to a token server of the same registered domain, and to no other
// host. Link-local addresses, where
// clouds answer with secrets, are never connected to. Plain http is spoken to registries on loopback and those that
// the operator lists.
package image

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"drover/driver"
)

// Errors of Store, to be recognised with errors.Is.
var (
	// ErrBadReference is an image reference, URL or checksum that cannot be read.
	ErrBadReference = errors.New("bad reference")
	// ErrNotFound is an image or archive that its server does not have, or not for this node's platform.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized is a server that wants other credentials.
	ErrUnauthorized = errors.New("not authorized")
	// ErrUnreachable is a server that cannot be reached, is overloaded, or stopped sending.
	ErrUnreachable = errors.New("unreachable")
	// ErrRefused is a connection that is against this node's rules: plain http, or a link-local address.
	ErrRefused = errors.New("refused")
	// ErrChecksum is content that is not what was asked for.
	ErrChecksum = errors.New("wrong checksum")
	// ErrInvalid is content that cannot be used: damaged, too large, leading out of its directory, of an unknown kind.
	ErrInvalid = errors.New("unusable content")
	// ErrFull is a full disk.
	ErrFull = errors.New("disk full")
)

// IsTemporary says whether the same call may succeed later without anybody changing anything.
func IsTemporary(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrFull)
}

// Options say how a Store works.
type Options struct {
	// Dir is where everything is kept; it is made when missing.
	Dir string
	// Unpacker is the command line of the program that calls unpack.Main.
	Unpacker []string
	// Stored is the range of ids that files are given on disk.
	Stored driver.IDRange
	// TLS adds a certificate authority to the system's, and a client certificate that is shown to servers that ask.
	TLS driver.TLSFiles
	// Insecure lists registries (host:port) that are spoken to in plain http. Loopback always may.
	Insecure []string
	// Activity is how long a transfer may bring no byte before it is begun again or given up; zero means two minutes.
	Activity time.Duration
	// Limits say what Collect removes.
	Limits Limits
	// Alive says whether the owner of an old lease still exists; nil means that all do.
	Alive func(owner string) bool
	// Log gets one line for each transfer; nil means none.
	Log *slog.Logger
}

// Auth is a user of a registry.
type Auth struct {
	Username, Password string
	// IdentityToken and RegistryToken are what some logins have instead of a password.
	IdentityToken, RegistryToken string
	// ServerAddress is the registry that the credentials are for; empty means the image's own.
	ServerAddress string
}

// Request is what is asked of Pull.
type Request struct {
	// Ref is a reference by tag or digest; a docker:// or https:// in front of it is ignored.
	Ref string
	// Auth is the user; nil means the one that Login finds, if that is set, or nobody. Login is asked only when the
	// registry has to be, and may return nil for nobody.
	Auth  *Auth
	Login func(ctx context.Context, registry, repository string) (*Auth, error)
	// AuthSoftFail makes a user who is refused or cannot be found be nobody.
	AuthSoftFail bool
	// Platform, such as linux/arm64/v8; empty means this node's.
	Platform string
	// Force asks the registry even where a cached answer would do.
	Force bool
	// Owner, when given, leases the image's layers from the moment that they are known; see Lease.
	Owner string
}

// Progress is how far a transfer has come, in bytes as they are transferred. Total is 0 while it is unknown.
type Progress struct {
	Done, Total int64
	// Layers of an image that are there, of those that were missing.
	LayersDone, Layers int
}

// Image is an image that is on this node.
type Image struct {
	// Ref is the reference in full, with the digest.
	Ref string
	// Digest of the manifest for this node's platform.
	Digest string
	Config driver.ImageConfig
	// Layers, lowest first.
	Layers []driver.Layer
	// Foreign is the image's platform where it is not this node's.
	Foreign string
	// Unconfirmed says why the registry could not tell what the tag means now; the image is what it meant before.
	Unconfirmed error
	Times       Times
}

// Times are how long the phases of a pull took. Layers are unpacked while they are transferred, so Unpack is only what
// was left to do when the last byte had come. Pull and Unpack are zero when nothing was missing.
type Times struct {
	Resolve, Pull, Unpack time.Duration
}

// Archive is a tar, tgz, tar.zst or zip file to be used as a layer.
type Archive struct {
	// URL (http or https) or absolute path on this node.
	URL string
	// Checksum is "sha256:", "sha1:" or "md5:" and hexadecimal digits. When empty, the URL is asked every time, whether
	// it has changed since.
	Checksum string
	// Format is one of the constants of package unpack; empty means by content.
	Format string
	// Prefix is the directory in the container that the archive is unpacked to. Directories above it belong to root,
	// but for those below /home, which belong to the owner, and are sticky where everybody may write, as /tmp is.
	Prefix string
	// UID and GID own everything, as the container counts them; nil keeps what the archive says.
	UID, GID *uint32
	// CacheKey names the archive when its URL's query is different each time.
	CacheKey string
}
