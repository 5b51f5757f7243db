package recipe

import (
	"errors"
	"fmt"
	"strings"
)

// ErrImage is wrapped when an image reference cannot be turned into a root file system's URL.
var ErrImage = errors.New("bad image reference")

// ImageURL is the docker: URL by which Cloud Controller names an image. Docker Hub has an empty host and its official
// images live in "library"; the tag is the fragment; a digest without a tag leaves "@sha256" on the path.
func ImageURL(reference string) (string, error) {
	if strings.Contains(reference, "://") || strings.ContainsAny(reference, "# ") || reference == "" {
		return "", fmt.Errorf("%w %q: want [host[:port]/]repository[:tag][@sha256:digest]", ErrImage, reference)
	}
	host, path := splitHost(reference)
	path, digest, _ := strings.Cut(path, "@")
	repository, tag := splitTag(path)
	if repository == "" {
		return "", fmt.Errorf("%w %q: it names no repository", ErrImage, reference)
	}
	fragment := tag
	switch {
	case digest == "":
	case tag != "":
		fragment = tag + "@" + digest
	default:
		algorithm, sum, found := strings.Cut(digest, ":")
		if !found {
			return "", fmt.Errorf("%w %q: its digest is not algorithm:hex", ErrImage, reference)
		}
		repository, fragment = repository+"@"+algorithm, sum
	}
	url := "docker://" + host + "/" + repository
	if fragment != "" {
		url += "#" + fragment
	}
	return url, nil
}

// splitHost tells a registry's host from the first part of a Docker Hub repository.
func splitHost(reference string) (host, path string) {
	first, rest, found := strings.Cut(reference, "/")
	if !found {
		return "", "library/" + reference
	}
	if !strings.ContainsAny(first, ".:") && first != "localhost" {
		return "", reference
	}
	return first, rest
}

func splitTag(path string) (repository, tag string) {
	if at := strings.LastIndex(path, ":"); at > strings.LastIndex(path, "/") {
		return path[:at], path[at+1:]
	}
	return path, ""
}
