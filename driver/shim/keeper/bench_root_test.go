//go:build root

package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/drivertest"
	"drover/driver/egress"
	"drover/driver/shim"
)

// BenchmarkStart is a container's whole life: start, end, destroy.
func BenchmarkStart(b *testing.B) {
	starts := newStarts(b)
	for b.Loop() {
		starts.once(b, func(*driver.Container) {})
	}
}

// BenchmarkStart_egress is the same in a network namespace, by turns without egress rules, with what is closed by default, and
// with the rules of a platform. It reports the median of each until the task's end is known, and until all is cleared away.
func BenchmarkStart_egress(b *testing.B) {
	metadata := driver.Egress{Deny: []driver.EgressRule{egress.Metadata()}}
	rule, err := egress.Text{Protocol: "tcp", Destinations: []string{"10.0.0.0/8", "192.0.2.1-192.0.2.9"}, Ports: []string{"80", "443"}}.Rule(nil)
	if err != nil {
		b.Fatal(err)
	}
	platform := driver.Egress{Deny: metadata.Deny, Within: [][]driver.EgressRule{slices.Repeat([]driver.EgressRule{rule}, 20)}}
	rows := []struct {
		name        string
		egress      *driver.Egress
		netNS       string
		ended, gone []float64
	}{{name: "none"}, {name: "metadata", egress: &metadata}, {name: "platform", egress: &platform}}
	for i := range rows {
		rows[i].netNS = newNetNS(b)
	}
	starts := newStarts(b)
	for b.Loop() {
		for i := range rows {
			row := &rows[i]
			ended, gone := starts.once(b, func(c *driver.Container) { c.NetNS, c.Egress = row.netNS, row.egress })
			row.ended, row.gone = append(row.ended, ended.Seconds()*1000), append(row.gone, gone.Seconds()*1000)
		}
	}
	for _, row := range rows {
		for what, list := range map[string][]float64{"ended": row.ended, "gone": row.gone} {
			slices.Sort(list)
			b.ReportMetric(list[len(list)/2], row.name+"-"+what+"-ms")
		}
	}
}

// starts are containers of one image.
type starts struct {
	layers []driver.Layer
	dir    string
}

func newStarts(b *testing.B) starts {
	b.Helper()
	s := starts{layers: drivertest.RootFS(b), dir: b.TempDir()}
	for _, path := range []string{filepath.Dir(s.dir), s.dir} {
		if err := os.Chmod(path, 0o711); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// once runs a container, and says how long it took until its end was known, and until it was cleared away.
func (s starts) once(b *testing.B, change func(c *driver.Container)) (ended, gone time.Duration) {
	b.Helper()
	n := serial.Add(1)
	task := filepath.Join(s.dir, fmt.Sprint(n))
	container := driver.Container{
		ID: fmt.Sprintf("bench-%d-%d", os.Getpid(), n), Hostname: "box", RootFS: driver.RootFS{Layers: s.layers},
		IDs: driver.IDRange{Host: 1_000_000, Size: 65536}, Limits: driver.Limits{PIDs: 64},
		Process: driver.Process{Args: []string{"/bin/probe", "echo"}, User: "vcap"},
	}
	change(&container)
	began := time.Now()
	client, err := shim.Start(b.Context(), program, task, container)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := client.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	ended = time.Since(began)
	_ = client.Close()
	if err := shim.Destroy(b.Context(), task); err != nil {
		b.Fatal(err)
	}
	return ended, time.Since(began)
}
