// Package registry holds the nouns of Drover's private image registry: where it listens, where it keeps its content
// and whom it trusts. The machine that serves images is in registry/server.
//
// A cell pulls an image by its reference, host[:port]/repository[:tag|@digest]; a registry without TLS is spoken to
// only by those who were told so, so that a forgotten flag fails loudly instead of sending credentials in the clear.
package registry

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
)

// ErrConfig is wrapped by every error of Config.Validate.
var ErrConfig = errors.New("registry cannot be configured so")

// Config says how a private registry is run.
type Config struct {
	// Listen is a TCP address such as "127.0.0.1:5000"; port 0 takes a free one.
	Listen string
	// Dir is an absolute directory that holds all content; it is made when missing.
	Dir string
	// TLS is served with when it names a certificate.
	TLS TLSFiles
}

// TLSFiles names the PEM files of a server.
type TLSFiles struct {
	Cert string
	Key  string
	// ClientCA, when set, demands a client certificate that one of its authorities signed.
	ClientCA string
}

// Enabled tells whether the registry speaks TLS.
func (f TLSFiles) Enabled() bool {
	return f.Cert != ""
}

// Validate refuses what could not work or would be less safe than it looks.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("%w: listen address %q is not host:port", ErrConfig, c.Listen)
	}
	if !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("%w: directory %q is not an absolute path", ErrConfig, c.Dir)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return fmt.Errorf("%w: a certificate and its key are given together or not at all", ErrConfig)
	}
	if c.TLS.ClientCA != "" && !c.TLS.Enabled() {
		return fmt.Errorf("%w: client certificates can be demanded only of TLS clients: give a certificate and key too", ErrConfig)
	}
	return nil
}
