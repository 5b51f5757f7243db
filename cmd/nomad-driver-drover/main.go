// Command nomad-driver-drover is the Nomad task driver plugin "drover". The agent starts it from its plugin_dir; see
// README.md for the stanza.
package main

import "drover/driver/plugin"

func main() { plugin.Serve() }
