package runc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// maxAccounts bounds /etc/passwd and /etc/group.
const maxAccounts = 1 << 20

// ErrNotRegular says that a path of a container is no plain file.
var ErrNotRegular = errors.New("not a regular file")

// Rootfs reads a container's files as its own processes would find them: absolute links begin at its root, and
// nothing leads out of it, nor through /proc's magic links.
type Rootfs struct{ dir *os.File }

// OpenRootfs opens a container's root: its mount point, or /proc/<pid>/root of one of its processes.
func OpenRootfs(dir string) (*Rootfs, error) {
	handle, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open container's root: %w", err)
	}
	return &Rootfs{dir: handle}, nil
}

// Close closes the root.
func (r *Rootfs) Close() error { return r.dir.Close() }

// Dir returns the root's own descriptor, open for path operations.
func (r *Rootfs) Dir() *os.File { return r.dir }

// Open opens a regular file for reading. Anything else is ErrNotRegular: a fifo would hang us, a device would act, and
// the kernel's own files tell a reader with our privileges what they do not tell the container.
func (r *Rootfs) Open(name string) (*os.File, error) {
	found, err := r.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	if err := ordinary(found); err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(found.Fd())), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ordinary refuses, before it is opened, what is not a regular file on a file system that holds files.
func ordinary(file *os.File) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrNotRegular
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil {
		return err
	}
	switch int64(fs.Type) { //nolint:unconvert // narrower on some architectures
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
		unix.SELINUX_MAGIC, unix.NSFS_MAGIC, unix.BINFMTFS_MAGIC:
		return ErrNotRegular
	}
	return nil
}

// IsDir reports whether a path is a directory, in the end.
func (r *Rootfs) IsDir(name string) bool {
	file, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	_ = file.Close()
	return true
}

// MakeDir opens a directory by its path alone, and makes it and those above it, for an owner, where they are missing.
func (r *Rootfs) MakeDir(name string, owner int) (*os.File, error) {
	name = path.Clean("/" + name)
	dir, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, os.ErrNotExist) || name == "/" {
		return dir, err
	}
	parent, err := r.MakeDir(path.Dir(name), owner)
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }()
	if err := unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o755); err != nil { // of a link that leads nowhere, too
		return nil, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	if err := unix.Fchmodat(int(parent.Fd()), path.Base(name), 0o755, 0); err != nil { // the umask took something away
		return nil, &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	if err := unix.Fchownat(int(parent.Fd()), path.Base(name), owner, owner, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &os.PathError{Op: "chown", Path: name, Err: err}
	}
	return r.open(name, unix.O_PATH|unix.O_DIRECTORY)
}

func (r *Rootfs) open(name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(r.dir.Fd()), name, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // EAGAIN: a rename was under way
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// User is an account as a container knows it.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Name     string
	Home     string
}

// User looks up "name", "uid", "name:group" or "uid:gid" in the container's own /etc/passwd and /etc/group. Numbers
// need no entry. Empty is root.
func (r *Rootfs) User(spec string) (User, error) {
	passwd, err := r.accounts("/etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := r.accounts("/etc/group")
	if err != nil {
		return User{}, err
	}
	if spec == "" {
		spec = "0"
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return User{}, userError(spec, err)
	}
	u := User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: path.Clean("/" + found.Home)} //nolint:gosec // the library bounds them
	for _, gid := range found.Sgids {
		u.Groups = append(u.Groups, uint32(gid)) //nolint:gosec // the library bounds them
	}
	u.Name = nameOf(passwd, found.Uid)
	return u, nil
}

// Groups looks up groups by name or number in the container's own /etc/group. Numbers need no entry.
func (r *Rootfs) Groups(names []string) ([]uint32, error) {
	if len(names) == 0 {
		return nil, nil
	}
	group, err := r.accounts("/etc/group")
	if err != nil {
		return nil, err
	}
	found, err := user.GetAdditionalGroups(names, strings.NewReader(group))
	if err != nil {
		return nil, fmt.Errorf("groups %q in the container: %w", names, err)
	}
	var list []uint32
	for _, gid := range found {
		list = append(list, uint32(gid)) //nolint:gosec // the library bounds them
	}
	return list, nil
}

func userError(spec string, err error) error {
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return fmt.Errorf("user %q: the container's /etc/passwd has no such user; name one that it has, or give numbers (UID:GID)", spec)
	case errors.Is(err, user.ErrNoGroupEntries):
		return fmt.Errorf("user %q: the container's /etc/group has no such group; name one that it has, or give a number", spec)
	}
	return fmt.Errorf("user %q in the container: %w", spec, err)
}

// accounts reads a file of accounts; that it is missing is no error, since an image may be a single binary.
func (r *Rootfs) accounts(name string) (string, error) {
	file, err := r.Open(name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read accounts of the container: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxAccounts+1))
	if err != nil {
		return "", fmt.Errorf("read accounts of the container: %w", err)
	}
	if len(text) > maxAccounts {
		return "", fmt.Errorf("%s of the container is larger than %d bytes", name, maxAccounts)
	}
	return string(text), nil
}

func nameOf(passwd string, uid int) string {
	entries, err := user.ParsePasswdFilter(strings.NewReader(passwd), func(u user.User) bool { return u.Uid == uid })
	if err != nil || len(entries) == 0 {
		return strconv.Itoa(uid)
	}
	return entries[0].Name
}
