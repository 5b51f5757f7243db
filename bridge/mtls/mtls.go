// Package mtls makes TLS configurations for connections on which both sides show a certificate.
//
// Every door of the bridge that carries secrets, and every call from the bridge to Cloud Controller, is mutually
// authenticated: the caller's certificate is the only password there is. Files names the three PEM files an operator
// has, Load reads them once and says which of them is wrong, and Identity gives a server's or a client's tls.Config.
// An Authority issues such files for a platform that lives only as long as a test or a developer's session.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files names a certificate authority, a certificate and its key, all in PEM.
type Files struct {
	CA   string
	Cert string
	Key  string
}

// Identity is who we are and whom we believe.
type Identity struct {
	cert tls.Certificate
	pool *x509.CertPool
}

// Load reads the files. The error tells of every file that is wrong, not only of the first.
func (f Files) Load() (*Identity, error) {
	pool, errCA := loadPool(f.CA)
	cert, errCert := tls.LoadX509KeyPair(f.Cert, f.Key)
	if errCert != nil {
		errCert = fmt.Errorf("load certificate %q with key %q: %w", f.Cert, f.Key, errCert)
	}
	if err := errors.Join(errCA, errCert); err != nil {
		return nil, err
	}
	return &Identity{cert: cert, pool: pool}, nil
}

func loadPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load certificate authority: %q holds no PEM certificate", path)
	}
	return pool, nil
}

// Server returns the configuration of a listener that turns away everyone without a certificate of our authority.
// It speaks HTTP/1.1 only, as all of Diego's clients do.
func (i *Identity) Server() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{i.cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    i.pool,
		NextProtos:   []string{"http/1.1"},
	}
}

// Client returns the configuration of a caller that shows its certificate and believes only our authority.
func (i *Identity) Client() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{i.cert},
		RootCAs:      i.pool,
	}
}
