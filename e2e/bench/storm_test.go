//go:build bench

package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/shim"
)

const stormClients = 5

// storm is one peer's way to make containers that stay, and to remove them.
type storm struct {
	create func(n int) error
	remove func(n int) error
}

// BenchmarkStartStorm is Garden's performance test: five clients make forty containers each, as fast as they can, and all stay
// until the end. Ours have user namespaces and a limit of one MiB on what they write; Docker has neither (Debian's overlay2
// has no quota on ext4).
func BenchmarkStartStorm(b *testing.B) {
	each := setting(b, "DROVER_BENCH_STORM", 40)
	dir := openDir(b)
	shimPath := build(b, openDir(b), "drover/cmd/drover-shim")
	names, storms := []string{"drover-shim"}, []storm{ourStorm(b, shimPath, dir)}
	if docker := startDocker(b); docker != nil {
		image := drivertest.Push(b, drivertest.Serve(b), "bench/probe:1", drivertest.RootFSImage(b, driver.ImageConfig{Entrypoint: []string{"/bin/probe"}}))
		if err := docker.pull(b.Context(), image); err != nil {
			b.Fatal(err)
		}
		ids := make([]string, stormClients*each)
		names, storms = append(names, docker.version), append(storms, storm{
			create: func(n int) (err error) {
				ids[n], err = docker.run(b.Context(), image, []string{"sleep", "600"})
				return err
			},
			remove: func(n int) error { return docker.remove(b.Context(), ids[n]) },
		})
	}
	creates, removes, rate := map[string]samples{}, map[string]samples{}, map[string]float64{}
	for round := range 2 {
		for i, name := range names {
			made, took := byClients(b, each, storms[i].create)
			gone, _ := byClients(b, each, storms[i].remove)
			if round > 0 { // the first round warms the caches
				creates[name], removes[name] = made, gone
				rate[name] = float64(len(made)) / took.Seconds()
			}
		}
	}
	report(b, "create", fmt.Sprintf("start-storm: %d clients make %d containers each", stormClients, each), names, creates)
	report(b, "remove", "start-storm: and remove them", names, removes)
	for _, name := range names {
		tell(b, "  %-28s %6.1f starts each second, %.2f × ours\n", name, rate[name], rate[name]/rate[names[0]])
	}
	if left, err := os.ReadDir(dir); err != nil || strings.Contains(fmt.Sprint(left), "storm-") {
		b.Errorf("left over: %v, %v", left, err)
	}
}

func ourStorm(b *testing.B, shimPath, dir string) storm {
	b.Helper()
	container := benchContainer(drivertest.RootFS(b))
	container.Filters = filepath.Join(dir, "filters")
	container.Process.Args = []string{"/bin/probe", "sleep", "600"}
	container.Disk = driver.Disk{Bytes: 1 << 20}
	name := func(n int) string { return fmt.Sprintf("storm-%d-%d", os.Getpid(), n) }
	return storm{
		create: func(n int) error {
			c := container
			c.ID = name(n)
			c.IDs.Host += uint32(n) << 16 //nolint:gosec // a few hundred
			client, err := shim.Start(b.Context(), shimPath, filepath.Join(dir, c.ID), c)
			if err != nil {
				return err
			}
			return client.Close()
		},
		remove: func(n int) error { return shim.Destroy(b.Context(), filepath.Join(dir, name(n))) },
	}
}

// byClients lets every client do its share, and returns how long each step and how long all took.
func byClients(b *testing.B, each int, do func(n int) error) (samples, time.Duration) {
	b.Helper()
	var clients sync.WaitGroup
	took := make(samples, stormClients*each)
	errs := make([]error, stormClients)
	began := time.Now()
	for client := range stormClients {
		clients.Go(func() {
			for n := range each {
				n += client * each
				start := time.Now()
				if errs[client] = do(n); errs[client] != nil {
					return
				}
				took[n] = time.Since(start)
			}
		})
	}
	clients.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return took, time.Since(began)
}
