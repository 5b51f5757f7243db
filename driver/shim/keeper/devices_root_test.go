//go:build root

package keeper_test

import (
	"strings"
	"testing"

	"drover/driver"
)

// Nodes are the container's own, everybody in it may use them, and no more than was asked for.
func TestDevices(t *testing.T) {
	for name, ids := range map[string]bool{"with a user namespace": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "sleep", "60")
			if !ids {
				b.wish.IDs = driver.IDRange{}
			}
			b.wish.Devices = []driver.Device{
				{Source: "/dev/kmsg", Target: "/dev/kmsg", Access: "r"},
				{Source: "/dev/zero", Target: "/dev/dri/nothing", Access: "rwm"},
				{Source: "/dev/kmsg", Target: "/dev/blind", Access: "m"},
			}
			b.start()
			if got := b.execAs("vcap", "stat", "/dev/kmsg", "/dev/dri/nothing"); !strings.Contains(got, "rw-rw-rw- 0 0 /dev/kmsg") || !strings.Contains(got, "/dev/dri/nothing") {
				t.Errorf("the nodes are %q", got)
			}
			if got := b.execAs("vcap", "append", "/dev/dri/nothing", "x"); got != "" {
				t.Errorf("writing to what is given: %q", got)
			}
			if got := b.execAs("root", "append", "/dev/kmsg", "x"); !strings.Contains(got, "not permitted") {
				t.Errorf("writing to what is given to be read: %q", got)
			}
			if got := b.execAs("root", "cat", "/dev/blind"); !strings.Contains(got, "not permitted") {
				t.Errorf("reading what is given to be made alone: %.100q", got)
			}
		})
	}
}

func TestDevices_thatAreNone(t *testing.T) {
	for _, source := range []string{"/dev/none", "/etc/passwd"} {
		b := newBox(t, "echo")
		b.wish.Devices = []driver.Device{{Source: source, Target: "/dev/x", Access: "rwm"}}
		if b.tryToRun() {
			t.Errorf("%s: it runs", source)
		}
	}
}

// A device that was not given stays closed, whatever node leads to it.
func TestDevices_notGiven(t *testing.T) {
	b := newBox(t, "sleep", "60")
	b.start()
	if got := b.execAs("root", "cat", "/dev/kmsg"); !strings.Contains(got, "no such file") {
		t.Errorf("a device nobody gave: %.100q", got)
	}
}
