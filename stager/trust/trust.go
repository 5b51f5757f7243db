// Package trust reads the certificates that the platform trusts: the root file system's own, and those that Cloud
// Foundry puts into every container. A small root file system often has none of its own, so a program that talks TLS
// from inside a container asks here.
package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
)

// Dir is where Cloud Controller's recipes ask for the platform's certificates.
const Dir = "/etc/cf-system-certificates"

const maxFile = 8 << 20

// Pool returns the system's certificates and those in the files of dir. A dir that does not exist adds none.
func Pool(dir string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return pool, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the trusted certificates: %w", err)
	}
	defer root.Close() //nolint:errcheck // Nothing was written.
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("listing the trusted certificates: %w", err)
	}
	for _, entry := range entries {
		if err := add(pool, root, entry.Name()); err != nil {
			return nil, err
		}
	}
	return pool, nil
}

// add takes what certificates a file holds; files of other kinds hold none, and neither do links out of the directory:
// what they mean on the node is not in the container.
func add(pool *x509.CertPool, root *os.Root, name string) error {
	info, err := root.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil // as above
	}
	f, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("opening a trusted certificate: %w", err)
	}
	defer f.Close() //nolint:errcheck // Nothing was written.
	pem, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return fmt.Errorf("reading the trusted certificate %s: %w", name, err)
	}
	pool.AppendCertsFromPEM(pem)
	return nil
}

// Transport returns an HTTP transport that trusts Dir's certificates, or, when verify is false, everyone.
func Transport(verify bool) (*http.Transport, error) {
	pool, err := Pool(Dir)
	if err != nil {
		return nil, err
	}
	return transport(pool, verify), nil
}
