package task

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// rootRef is where a root file system comes from: a stack's name or an image's reference, one of them.
type rootRef struct {
	Stack string
	Image string
}

// dockerHub is the registry that Cloud Controller leaves out of a docker:// URL.
const dockerHub = "docker.io"

// parseRootFS reads the root_fs of a DesiredLRP or TaskDefinition:
//
//	preloaded:cflinuxfs4
//	docker://registry.example.com/team/app#1.2
//	docker:///library/busybox#latest            Docker Hub
//	docker:///library/busybox                   no tag: latest
//	docker:///a/b@sha256#0123…                  digest
//	docker:///a/b#1.2@sha256:0123…              tag and digest
func parseRootFS(raw string) (rootRef, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return rootRef{}, fmt.Errorf("root_fs %q is not a URL", redact(raw))
	}
	switch u.Scheme {
	case "preloaded":
		name := u.Opaque
		if name == "" || strings.ContainsAny(name, "/:@?") {
			return rootRef{}, fmt.Errorf("root_fs %q names no stack", redact(raw))
		}
		return rootRef{Stack: name}, nil
	case "docker":
		image, err := dockerReference(u)
		if err != nil {
			return rootRef{}, fmt.Errorf("root_fs %q: %w", redact(raw), err)
		}
		return rootRef{Image: image}, nil
	}
	return rootRef{}, fmt.Errorf("root_fs %q: scheme %q is not supported; preloaded and docker are", redact(raw), u.Scheme)
}

func dockerReference(u *url.URL) (string, error) {
	if u.User != nil {
		return "", errors.New("user information in the URL is not allowed; use image_username and image_password")
	}
	if u.RawQuery != "" || u.Opaque != "" {
		return "", errors.New("not of the form docker://host/path#tag")
	}
	host, path, fragment := u.Host, strings.TrimPrefix(u.Path, "/"), u.Fragment
	if path == "" {
		return "", errors.New("names no image")
	}
	if host == "" {
		host = dockerHub
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
	}
	repo, isDigest := strings.CutSuffix(path, "@sha256")
	switch {
	case isDigest:
		if raw, err := hex.DecodeString(fragment); err != nil || len(raw) != 32 {
			return "", errors.New("the fragment behind @sha256 is not a digest")
		}
		return host + "/" + repo + "@sha256:" + fragment, nil
	case strings.ContainsAny(path, "@:"):
		return "", errors.New("tag and digest belong behind #")
	case fragment == "":
		return host + "/" + path + ":latest", nil
	}
	tag, digest, _ := strings.Cut(fragment, "@")
	if tag == "" {
		return host + "/" + path + "@" + digest, nil
	}
	return host + "/" + path + ":" + fragment, nil
}
