package unpack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"drover/driver"
)

// destFD is the child's file descriptor of the destination: the first behind standard error.
const destFD = 3

// Run unpacks the archive that r reads. Helper is the command line of a program that calls Main; the job is appended
// to it. When r can be closed, Run closes it; a regular file is handed to the child as it is.
func Run(ctx context.Context, helper []string, job Job, r io.Reader) (Stats, error) {
	if closer, ok := r.(io.Closer); ok {
		defer func() { _ = closer.Close() }()
	}
	job = job.withDefaults()
	dest, err := openDest(job)
	if err != nil {
		return Stats{}, err
	}
	defer func() { _ = dest.Close() }()
	raw, err := json.Marshal(job)
	if err != nil {
		return Stats{}, fmt.Errorf("unpack: encode job: %w", err)
	}
	program, err := os.Open(helper[0])
	if err != nil {
		return Stats{}, fmt.Errorf("unpack: open helper: %w", err)
	}
	defer func() { _ = program.Close() }()

	// By descriptor: the child's user may not be allowed to walk to the program.
	cmd := exec.CommandContext(ctx, "/proc/self/fd/"+strconv.Itoa(int(program.Fd())))
	cmd.Args = append(append([]string{}, helper...), string(raw))
	cmd.Env = []string{"GOMEMLIMIT=64MiB", "GOTRACEBACK=none"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{dest}
	cmd.SysProcAttr = confine(job.IDs)
	return converse(ctx, cmd, r)
}

// converse feeds the child and reads its report.
func converse(ctx context.Context, cmd *exec.Cmd, r io.Reader) (Stats, error) {
	var stdout, stderr head
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	fed, err := feed(cmd, r)
	if err != nil {
		return Stats{}, err
	}
	waitErr := cmd.Wait()
	readErr := fed()
	var answer result
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		if ctx.Err() != nil {
			return Stats{}, fmt.Errorf("unpack: %w", context.Cause(ctx))
		}
		return Stats{}, fmt.Errorf("unpack: helper failed: %w: %q", errors.Join(waitErr, readErr), stderr.Bytes())
	}
	if readErr != nil {
		return answer.Stats, fmt.Errorf("unpack: read archive: %w", readErr)
	}
	return answer.Stats, answer.err()
}

// feed starts the child with r as its standard input. The function that it returns, to be called when the child has
// ended, waits until r is not read any more and says how reading failed; that the child has stopped listening is no
// failure.
func feed(cmd *exec.Cmd, r io.Reader) (func() error, error) {
	if file, ok := r.(*os.File); ok {
		cmd.Stdin = file
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("unpack: start helper: %w", err)
		}
		return func() error { return nil }, nil
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("unpack: pipe: %w", err)
	}
	_, _ = unix.FcntlInt(out.Fd(), unix.F_SETPIPE_SZ, 1<<20) // fewer switches; refused when over the user's quota
	cmd.Stdin = in
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		_ = out.Close()
		return nil, fmt.Errorf("unpack: start helper: %w", err)
	}
	from, done := &source{r: r}, make(chan struct{})
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{out}, from, make([]byte, 256<<10))
		_ = out.Close()
		close(done)
	}()
	return func() error {
		from.release()
		<-done
		return from.err
	}, nil
}

// source remembers how its reader failed, apart from how a writer did.
type source struct {
	r    io.Reader
	err  error
	gone atomic.Bool
}

// Read is called until the child has ended, or the reader has.
func (s *source) Read(p []byte) (int, error) {
	got, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !s.gone.Load() {
		s.err = err
	}
	return got, err
}

// release makes a reader let go that waits for its peer.
func (s *source) release() {
	s.gone.Store(true)
	if closer, ok := s.r.(io.Closer); ok {
		_ = closer.Close()
	}
}

// openDest opens the destination as a mount of its own, which the child can make its root, or as a plain directory
// where that is refused.
func openDest(job Job) (*os.File, error) {
	if job.DestFD != nil {
		fd, err := unix.Openat(int(job.DestFD.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("unpack: open destination: %w", err)
		}
		return os.NewFile(uintptr(fd), job.DestFD.Name()), nil
	}
	root, _ := job.IDs.HostID(0)
	if err := os.Lchown(job.Dest, int(root), int(root)); err != nil {
		return nil, fmt.Errorf("unpack: own destination: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, job.Dest, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		attr := unix.MountAttr{
			Attr_set:    unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC,
			Propagation: unix.MS_PRIVATE, // hosts share their mounts, as systemd does, and a shared one is no root to pivot to
		}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("unpack: restrict destination: %w", err)
		}
		return os.NewFile(uintptr(fd), job.Dest), nil
	}
	fd, err = unix.Open(job.Dest, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("unpack: open destination: %w", err)
	}
	return os.NewFile(uintptr(fd), job.Dest), nil
}

// confine puts the child into namespaces of its own, as root of the range.
func confine(ids driver.IDRange) *syscall.SysProcAttr {
	var maps []syscall.SysProcIDMap
	for _, e := range ids.Extents() {
		maps = append(maps, syscall.SysProcIDMap{ContainerID: int(e.Container), HostID: int(e.Host), Size: int(e.Size)})
	}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings:                maps,
		GidMappings:                maps,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0, Groups: []uint32{}},
		Setsid:                     true,
	}
}

// head keeps the first 64 KiB of what is written to it, and takes the rest.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := 64<<10 - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
