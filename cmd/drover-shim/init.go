package main

import (
	"os"

	"drover/driver/runc"
)

// init is libcontainer's way into a container that is being made: before main, before flags, before goroutines.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		runc.Init()
	}
}
