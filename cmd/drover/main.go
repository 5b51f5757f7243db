// Command drover is everything of Drover that an operator or developer types: the bridge and the registry as services,
// a platform on one machine to try it all, and the commands that push and watch apps on it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run())
}

// run runs the command that was typed and returns its exit status.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal does not wait
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "drover: %v\n", err)
		return 1
	}
	return 0
}
