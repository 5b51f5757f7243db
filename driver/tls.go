package driver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Client returns the TLS configuration of a client with these credentials. The authorities are added to the system's;
// the certificate is offered to servers that ask for one, and read again for each of them: it may have been renewed.
func (f TLSFiles) Client() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read certificate authorities: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authorities %s: the file holds no PEM certificate", f.CA)
		}
		config.RootCAs = pool
	}
	if f.Cert != "" {
		if _, err := tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &pair, err
		}
	}
	return config, nil
}
