package buildpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"drover/stager/trust"
)

// fetchTimeout bounds the download of one buildpack.
const fetchTimeout = 10 * time.Minute

// maxArchive bounds a downloaded archive; the largest known buildpack is a quarter of it.
const maxArchive = 4 << 30

// ErrNoGit is wrapped when a buildpack has to be cloned and the root file system has no git.
var ErrNoGit = errors.New("git is not installed in this stack")

// IsURL reports whether a key is a URL that Fetch should be asked for, rather than the name of a buildpack that the
// platform has put in place.
func IsURL(key string) bool {
	u, err := url.Parse(key)
	return err == nil && u.IsAbs() && u.Host != ""
}

// Redact returns a URL without userinfo, query and fragment, fit for a log.
func Redact(key string) string {
	u, err := url.Parse(key)
	if err != nil {
		return "(an address that cannot be parsed)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Source is where buildpacks are fetched from, and how.
type Source struct {
	// SkipVerify accepts any TLS certificate.
	SkipVerify bool
	// Env is git's environment.
	Env []string
	// Stdout and Stderr receive git's words.
	Stdout, Stderr io.Writer
}

// Fetch puts the buildpack of a URL below base, into its DirName, where Find finds it: from an archive when the path
// ends in .zip, else by git. A fragment names a git branch or tag.
func (s Source) Fetch(ctx context.Context, base, key string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	u, err := url.Parse(key)
	if err != nil {
		return errors.New("the buildpack's address cannot be parsed") // url.Error would quote its password.
	}
	dest := filepath.Join(base, DirName(key))
	if err := os.MkdirAll(base, 0o755); err != nil { //nolint:gosec // The stack's other users may look.
		return fmt.Errorf("making the download directory: %w", err)
	}
	if strings.HasSuffix(u.Path, ".zip") && (u.Scheme == "http" || u.Scheme == "https") {
		err = s.download(ctx, u, dest)
	} else {
		err = s.clone(ctx, u, dest)
	}
	if err != nil {
		return fmt.Errorf("fetching buildpack %s: %w", Redact(key), err)
	}
	return nil
}

// download keeps the archive in a file, because a zip is read from its end.
func (s Source) download(ctx context.Context, u *url.URL, dest string) error {
	transport, err := trust.Transport(!s.SkipVerify)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errors.New("the address cannot be asked")
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // Without the address, which may hold a password or a signature.
		}
		return fmt.Errorf("downloading: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // Only read.
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("downloading: the server answered %s", resp.Status)
	}
	tmp, err := os.CreateTemp(filepath.Dir(dest), "buildpack-*.zip")
	if err != nil {
		return fmt.Errorf("making a file for the archive: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // A leftover in a container that ends soon.
	defer tmp.Close()           //nolint:errcheck // Written data is read through the same file.
	size, err := io.Copy(tmp, io.LimitReader(resp.Body, maxArchive+1))
	if err != nil {
		return fmt.Errorf("downloading: %w", err)
	}
	if size > maxArchive {
		return fmt.Errorf("the archive is larger than %d bytes", int64(maxArchive))
	}
	return unzip(tmp, size, dest)
}

// clone prefers the shallow way and falls back to a whole clone: not every server offers depth, and a fragment may be a
// commit, which is no branch.
func (s Source) clone(ctx context.Context, u *url.URL, dest string) error {
	git, err := exec.LookPath("git")
	if err != nil {
		return ErrNoGit
	}
	address := *u
	address.Fragment, address.RawFragment = "", ""
	shallow := []string{"clone", "--quiet", "--depth", "1", "--recursive", "--shallow-submodules"}
	if u.Fragment != "" {
		shallow = append(shallow, "--branch="+u.Fragment)
	}
	shallowErr := s.git(ctx, git, append(shallow, "--", address.String(), dest)...)
	if shallowErr == nil {
		return nil
	}
	if err := os.RemoveAll(dest); err != nil {
		return fmt.Errorf("removing a partial clone: %w", err)
	}
	if err := s.git(ctx, git, "clone", "--quiet", "--recursive", "--", address.String(), dest); err != nil {
		return fmt.Errorf("cloning: %w", err)
	}
	if u.Fragment == "" {
		return nil
	}
	if strings.HasPrefix(u.Fragment, "-") {
		return errors.New("the branch's name begins with a dash")
	}
	if err := s.git(ctx, git, "-C", dest, "checkout", "--quiet", u.Fragment); err != nil {
		return fmt.Errorf("checking out: %w", err)
	}
	return nil
}

func (s Source) git(ctx context.Context, git string, args ...string) error {
	if s.SkipVerify {
		args = append([]string{"-c", "http.sslVerify=false"}, args...)
	}
	cmd := exec.CommandContext(ctx, git, args...)
	cmd.Env = append([]string{"GIT_TERMINAL_PROMPT=0"}, s.Env...)
	cmd.Stdout, cmd.Stderr = s.Stdout, s.Stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git: %w", err)
	}
	return nil
}
