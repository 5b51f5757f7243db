package rootfs

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// overlay mounts on dir/rootfs, with options whose paths are relative to dir: they are short, so that many layers fit
// into the page that the kernel takes, and hold no character that means something to it. The working directory belongs
// to the whole process; so this is done by a thread that stops sharing it, and ends.
func overlay(dir string, flags uintptr, options string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		done <- overlayHere(dir, flags, options)
	}()
	return <-done
}

func overlayHere(dir string, flags uintptr, options string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the shared working directory: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter state directory: %w", err)
	}
	if err := unix.Mount("overlay", "rootfs", "overlay", flags, options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}
