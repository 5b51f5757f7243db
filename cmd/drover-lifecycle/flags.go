package main

import (
	"flag"
	"io"
	"strings"

	"drover/stager"
)

// newFlags returns an empty set whose errors are returned only, for fail to print once.
func (c *call) newFlags() *flag.FlagSet {
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	return set
}

// parse reads args. Unknown flags, malformed values and stray arguments are errors that name them.
func (c *call) parse(set *flag.FlagSet, args []string) error {
	if err := set.Parse(args); err != nil {
		return stager.Fail(stager.ExitError, "%s: %w", c.name, err)
	}
	if set.NArg() > 0 {
		return stager.Fail(stager.ExitError, "%s: unexpected argument %q", c.name, set.Arg(0))
	}
	return nil
}

// list splits a comma-separated flag.
func list(text string) []string {
	var out []string
	for _, item := range strings.Split(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}
