package drivertest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"drover/driver"
	"drover/driver/drivertest"
)

func TestRootFS(t *testing.T) {
	t.Parallel()
	layers := drivertest.RootFS(t)
	out, err := exec.CommandContext(t.Context(), filepath.Join(layers[0].Dir, "bin/probe"), "then", "--", "echo", "a", "b", "--", "exit", "7").Output()
	if string(out) != "a b\n" || err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("probe printed %q and ended with %v", out, err)
	}
	info, err := os.Stat(filepath.Join(layers[0].Dir, "tmp"))
	if err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSticky == 0 {
		t.Errorf("/tmp has mode %v, %v", info.Mode(), err)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	image := drivertest.Image(t, driver.ImageConfig{User: "vcap"}, drivertest.Tar(t, drivertest.File("motd", 0o644, "hi")))
	ref, err := name.ParseReference(drivertest.Push(t, drivertest.Serve(t), "team/app:1", image))
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	file, err := got.ConfigFile()
	if err != nil || file.Config.User != "vcap" {
		t.Errorf("config %+v, %v", file, err)
	}
}
