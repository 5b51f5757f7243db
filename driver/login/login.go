// Package login finds the user by whom a registry knows this node: in Docker's configuration file, by the credential
// helpers that it names, or by a helper of the operator's choice.
//
//	user, err := login.Sources{File: "/root/.docker/config.json", Helper: "ecr-login"}.For(ctx, "registry.example.com", "team/app")
//
// The file is read anew each time, so that what is rotated is found. A helper is the program docker-credential-NAME on
// the plugin's PATH, in a directory with an absolute name; it gets the registry's address, ten seconds and no terminal.
// Errors tell which source failed, and nothing of what it said: that may be a secret.
package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	// maxFile and maxAnswer bound what a configuration and a helper may say.
	maxFile   = 1 << 20
	maxAnswer = 64 << 10
	// helperTimeout is how long a helper may take, which may have to ask a cloud.
	helperTimeout = 10 * time.Second
	// dockerHub is the registry that has another name in configuration files, for old times' sake.
	dockerHub, dockerHubKey = "index.docker.io", "https://index.docker.io/v1/"
)

// Sources are where users are looked for, in this order; what is empty is not asked.
type Sources struct {
	// File is a Docker configuration file: its credHelpers and credsStore are asked before its auths.
	File string
	// Helper is the NAME of docker-credential-NAME, asked for registries that the file does not know.
	Helper string
}

// User is what a registry knows somebody by: a name and a password, or a token.
type User struct{ Username, Password, IdentityToken, RegistryToken string }

// CheckHelper says what is wrong with the name of a helper.
func CheckHelper(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`).MatchString(name) {
		return fmt.Errorf("%q is no name of a credential helper; NAME stands for the program docker-credential-NAME", name)
	}
	return nil
}

// For returns the user for a repository of a registry, or nil when nobody knows one.
func (s Sources) For(ctx context.Context, registry, repository string) (*User, error) {
	if s.File != "" {
		user, err := fromFile(ctx, s.File, registry, repository)
		if user != nil || err != nil {
			return user, err
		}
	}
	if s.Helper == "" {
		return nil, nil //nolint:nilnil // nobody is no error
	}
	return ask(ctx, s.Helper, registry)
}

// file is the part of Docker's configuration file that is about users.
type file struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	} `json:"auths"`
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

func fromFile(ctx context.Context, path, registry, repository string) (*User, error) {
	found, err := read(path)
	if err != nil {
		return nil, err
	}
	helper := found.CredsStore
	if key, ok := best(found.CredHelpers, registry, repository); ok {
		helper = found.CredHelpers[key]
	}
	if helper != "" {
		if err := CheckHelper(helper); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if user, err := ask(ctx, helper, registry); user != nil || err != nil {
			return user, err
		}
	}
	key, ok := best(found.Auths, registry, repository)
	if !ok {
		return nil, nil //nolint:nilnil // nobody is no error
	}
	entry := found.Auths[key]
	user := &User{Username: entry.Username, Password: entry.Password, IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken}
	if entry.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(entry.Auth)
		name, password, ok := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		if err != nil || !ok {
			return nil, fmt.Errorf("%s: the auth of %s is not the base64 of USER:PASSWORD", path, key)
		}
		user.Username, user.Password = name, password
	}
	if *user == (User{}) {
		return nil, nil //nolint:nilnil // an entry that a store has emptied
	}
	return user, nil
}

func read(path string) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("registry users: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("registry users: %s is no file of at most %d bytes", path, maxFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("registry users: %w", err)
	}
	var found file
	if json.Unmarshal(raw, &found) != nil { // its error may quote the file
		return nil, fmt.Errorf("registry users: %s is no JSON of Docker's configuration file", path)
	}
	return &found, nil
}

// best is the key that fits a repository most closely. Keys are hosts, URLs of hosts, or hosts with the beginning of a
// repository's name.
func best[V any](entries map[string]V, registry, repository string) (string, bool) {
	chosen, length, found := "", -1, false
	for key := range entries {
		host, path, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://"), "/")
		path = strings.Trim(path, "/")
		if path == "v1" || path == "v2" {
			path = ""
		}
		if host == "docker.io" || host == "registry-1.docker.io" {
			host = dockerHub
		}
		fits := path == "" || repository == path || strings.HasPrefix(repository, path+"/")
		if host == registry && fits && (len(path) > length || len(path) == length && key < chosen) {
			chosen, length, found = key, len(path), true
		}
	}
	return chosen, found
}

// ask runs a credential helper.
func ask(ctx context.Context, name, registry string) (*User, error) {
	program, err := find("docker-credential-" + name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	if registry == dockerHub {
		registry = dockerHubKey
	}
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(registry + "\n")
	var said head
	cmd.Stdout = &said
	cmd.WaitDelay = time.Second // its children may hold the pipe
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("credential helper %s: no answer within %s", filepath.Base(program), helperTimeout)
	}
	if err != nil {
		if strings.Contains(said.String(), "credentials not found") {
			return nil, nil //nolint:nilnil // as the helpers' protocol says it
		}
		return nil, fmt.Errorf("credential helper %s for %s: %w (run it by hand to see why)", filepath.Base(program), registry, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(said.Bytes(), &answer) != nil {
		return nil, fmt.Errorf("credential helper %s for %s: its answer is not understood", filepath.Base(program), registry)
	}
	switch {
	case answer.Secret == "":
		return nil, nil //nolint:nilnil // nobody is no error
	case answer.Username == "<token>":
		return &User{IdentityToken: answer.Secret}, nil
	}
	return &User{Username: answer.Username, Password: answer.Secret}, nil
}

// find looks a program up on the PATH, and refuses one that anybody may write.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) || err == nil && !filepath.IsAbs(path) {
		return "", fmt.Errorf("credential helper %s: the PATH of the plugin has a relative directory", name)
	}
	if err != nil {
		return "", fmt.Errorf("credential helper %s: it is not on the PATH of the plugin", name)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("credential helper %s: %w", name, err)
	}
	if info.Mode()&(fs.ModePerm&0o002) != 0 {
		return "", fmt.Errorf("credential helper %s: everybody may write %s", name, path)
	}
	return path, nil
}

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := maxAnswer - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
