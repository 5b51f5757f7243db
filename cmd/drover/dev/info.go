package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"drover/bridge/mtls"
	"drover/cmd/drover/controller"
)

// infoFile is where a running platform says how to reach it.
const infoFile = "dev.json"

// ErrNotRunning is wrapped when no platform runs in a state directory.
var ErrNotRunning = errors.New("no drover dev is running")

// Info is how to reach a running platform.
type Info struct {
	Dir        string            `json:"dir"`
	Controller controller.Config `json:"controller"`
	// TLS names the certificate of commands.
	TLS mtls.Files `json:"tls"`
	// Nomad and Consul are URLs, Registry is host:port.
	Nomad    string `json:"nomad"`
	Consul   string `json:"consul"`
	Registry string `json:"registry"`
	// Web is an image to try, already in the registry.
	Web string `json:"web"`
	// Tasks is where the driver keeps the root file systems of tasks.
	Tasks string `json:"tasks"`
	// Logs is the directory of everybody's logs.
	Logs string `json:"logs"`
}

// Read finds the platform that runs in a state directory.
func Read(dir string) (Info, error) {
	var info Info
	text, err := os.ReadFile(filepath.Join(dir, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("%w in %s: start one with `drover dev`, or name its directory with --dir or DROVER_DEV", ErrNotRunning, dir)
	}
	if err != nil {
		return info, fmt.Errorf("read how to reach drover dev: %w", err)
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return info, fmt.Errorf("read how to reach drover dev: %w", err)
	}
	return info, nil
}

// write publishes the information, whole or not at all.
func (i Info) write() error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("say how to reach us: %w", err)
	}
	path := filepath.Join(i.Dir, infoFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("say how to reach us: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("say how to reach us: %w", err)
	}
	return nil
}

// Connect returns a Controller on the platform.
func (i Info) Connect() (*controller.Controller, error) {
	identity, err := i.TLS.Load()
	if err != nil {
		return nil, err
	}
	return controller.New(i.Controller, identity), nil
}
