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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal does not wait
	root := newRootCommand()
	if err := root.ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "drover: %v\n", err)
		os.Exit(1)
	}
}
