// Command drover-shim keeps one task's container. The plugin starts one for each task; operators only install it.
//
// It must be a static binary, executable by everybody (0755), since it also is process 1 of some containers:
//
//	CGO_ENABLED=1 go build -trimpath -tags seccomp,osusergo,netgo,static_build \
//		-ldflags '-s -w -linkmode=external -extldflags -static' -o bin/drover-shim ./cmd/drover-shim
//
// That needs a C compiler and libseccomp's static library (Debian: gcc, libseccomp-dev).
//
//	drover-shim run <dir>     make and keep the task of a state directory (package driver/shim)
//	drover-shim exec <dir>    serve one exec on descriptor 3, for a task whose shim was killed
//	drover-shim init          libcontainer's own, inside a container that is being made
//	drover-shim reaper        process 1 of a container that runs an action tree
//	drover-shim filter        compile a system call filter, from standard input to standard output (package driver/runc)
//	drover-shim tend PROGRAM  process 1 of a container whose task has the option init
//	drover-shim unpack <job>  extract an archive, confined (package driver/unpack)
//	drover-shim self-test     what the node's self-test runs in its container (package driver/selftest)
//	drover-shim version       print the version
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"drover/driver"
	"drover/driver/runc"
	"drover/driver/selftest"
	"drover/driver/shim/keeper"
	"drover/driver/unpack"
)

// init is libcontainer's way into a container that is being made: before main, before flags, before goroutines.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		runc.Init()
	}
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) == 3 && os.Args[1] == "unpack" {
		os.Exit(unpack.Main(os.Args[2:], os.Stdin))
	}
	if err := run(context.Background(), os.Args[1:], log); err != nil {
		log.Error("drover-shim failed", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, log *slog.Logger) error {
	switch {
	case len(args) == 1 && args[0] == "version":
		_, err := fmt.Fprintln(os.Stdout, driver.Version)
		return err
	case len(args) == 2 && args[0] == "self-test":
		return selftest.Inside(args[1:], os.Stdout)
	case len(args) == 1 && args[0] == runc.CompileCommand:
		return runc.CompileMain(os.Stdin)
	case len(args) == 2 && args[0] == "run":
		return keeper.Run(ctx, args[1], log)
	case len(args) == 2 && args[0] == "exec":
		socket := os.NewFile(3, "client")
		defer func() { _ = socket.Close() }()
		conn, err := net.FileConn(socket)
		if err != nil {
			return fmt.Errorf("descriptor 3 is no socket: %w", err)
		}
		return keeper.ServeExec(ctx, args[1], conn)
	}
	return errors.New("usage: drover-shim run DIR | exec DIR | unpack JOB | version; the plugin runs it, not you")
}
