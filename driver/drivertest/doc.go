// Package drivertest helps to test the driver's packages with the real thing: programs built for the test, root file
// systems small enough to be made for each test, images, and a registry to serve them.
//
//	layers := drivertest.RootFS(t)                    // a plain directory with /bin/probe, users root and vcap
//	image := drivertest.Image(t, config, drivertest.Tar(t, drivertest.File("etc/motd", 0o644, "hi")))
//	host := drivertest.Serve(t)                       // an empty registry on loopback
//	ref := drivertest.Push(t, host, "team/app:1", image)
//
// /bin/probe is the program in driver/drivertest/probe: its package comment lists what it can do.
package drivertest
