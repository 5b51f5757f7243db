package trust

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"
)

// transport has limits for every phase but the body, which is bounded by its reader.
func transport(pool *x509.CertPool, verify bool) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   4,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            pool,
			InsecureSkipVerify: !verify, // The person who staged asked for it.
		},
	}
}
