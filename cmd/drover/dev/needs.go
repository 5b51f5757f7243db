package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"drover/e2e/agent"
)

// ErrNeeds is wrapped when the machine lacks something.
var ErrNeeds = errors.New("this machine is not ready")

// cniDirs are where distributions and people put CNI's plugins.
func cniDirs() []string {
	return []string{"/usr/lib/cni", "/opt/cni/bin"}
}

// siblings are the programs that make build puts beside drover.
func siblings() []string {
	return []string{pluginName, "drover-shim", "drover-lifecycle"}
}

// checkNeeds says everything that is missing, and how to get it; it returns the directory of CNI's plugins.
func checkNeeds(c Config) (cniDir string, err error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: containers, mounts and networks need root; run it with sudo", ErrNeeds)
	}
	var missing, packages []string
	need := func(program, debian string) {
		if _, err := exec.LookPath(program); err != nil {
			missing, packages = append(missing, program), append(packages, debian)
		}
	}
	need("ip", "iproute2")
	need("iptables", "iptables")
	need("tar", "tar")
	if c.StackImage == "" && c.StackRootFS == "" {
		need("debootstrap", "debootstrap")
	}
	if cniDir = findCNI(); cniDir == "" {
		missing, packages = append(missing, "CNI plugins"), append(packages, "containernetworking-plugins")
	}
	var problems []string
	if len(missing) > 0 {
		problems = append(problems, fmt.Sprintf("%s missing: apt-get install %s", strings.Join(missing, ", "), strings.Join(packages, " ")))
	}
	for _, program := range siblings() {
		if _, err := os.Stat(filepath.Join(c.Bin, program)); err != nil {
			problems = append(problems, fmt.Sprintf("%s is not in %s: make build", program, c.Bin))
		}
	}
	for _, program := range []string{"nomad", "consul"} {
		if _, err := agent.Find(program); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) > 0 {
		return "", fmt.Errorf("%w:\n  %s", ErrNeeds, strings.Join(problems, "\n  "))
	}
	return cniDir, nil
}

// findCNI is the first directory that holds every plugin that our network uses.
func findCNI() string {
	for _, dir := range cniDirs() {
		complete := true
		for _, plugin := range []string{"loopback", "bridge", "host-local", "portmap"} {
			if _, err := os.Stat(filepath.Join(dir, plugin)); err != nil {
				complete = false
			}
		}
		if complete {
			return dir
		}
	}
	return ""
}
