package unpack

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Arguments by which the tests start their own binary as the confined child.
const (
	asHelper  = "unpack-helper"  // as the driver does
	asPivot   = "unpack-pivot"   // only to say whether the destination can become the root mount
	asHang    = "unpack-hang"    // to read its input and never end
	asBurglar = "unpack-burglar" // to look for a way out, with a directory of the host
	asWeighed = "unpack-weighed" // as the driver does, and to write the most memory that it held to /.peak
	asWorld   = "unpack-world"   // to live in a mount namespace with a file system that nobody else sees
)

func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	switch os.Args[1] {
	case asHelper:
		os.Exit(Main(os.Args[2:], os.Stdin))
	case asBurglar:
		burgle(os.Args[2])
	case asWeighed:
		os.Exit(weigh(os.Args[2:]))
	case asPivot:
		if err := pivot(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case asWorld:
		if err := unix.Mount("tmpfs", os.Args[2], "tmpfs", 0, "mode=0755,uid="+os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, _ = io.WriteString(os.Stdout, "ready\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case asHang:
		select {}
	default:
		os.Exit(m.Run())
	}
}

// burgle is the confined child without any manners.
func burgle(host string) {
	found := false
	say := func(text string) {
		found = true
		fmt.Fprintln(os.Stderr, "burglar: "+text)
	}
	if err := enter(); err != nil {
		say("cannot enter: " + err.Error())
		os.Exit(1)
	}
	climb := strings.Repeat("../", 40)
	for _, path := range []string{host, climb + host, "/proc/self/cwd" + host, "../host", "/etc/passwd"} {
		if _, err := os.Lstat(path); err == nil {
			say("sees " + path)
		}
		if os.WriteFile(path+"/evil", nil, 0o600) == nil || os.Remove(path+"/open") == nil || os.Chmod(path, 0) == nil {
			say("changes " + path)
		}
	}
	for fd := 3; fd < 256; fd++ {
		if unix.Faccessat(fd, "host", 0, 0) == nil || unix.Faccessat(fd, "etc", 0, 0) == nil {
			say(fmt.Sprint("has a way by descriptor ", fd))
		}
	}
	if err := unix.Mknod("/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 1))); err == nil {
		say("makes devices")
	}
	if err := unix.Kill(os.Getppid(), 0); os.Getppid() != 0 && err == nil {
		say("sees processes")
	}
	if links, err := net.Interfaces(); err == nil && len(links) > 1 {
		say("has a network")
	}
	if !found {
		say("nothing found")
	}
	os.Exit(1)
}

// weigh is the confined child, and tells what it weighed.
func weigh(args []string) int {
	status, err := os.Open("/proc/self/status") // while there is a /proc
	if err != nil {
		return 1
	}
	code := Main(args, os.Stdin)
	text, err := io.ReadAll(status)
	if err != nil || os.WriteFile("/.peak", text, 0o644) != nil {
		return 1
	}
	return code
}
