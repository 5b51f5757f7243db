package action

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newIdentity makes a client's certificate and key.
func newIdentity(t *testing.T) (cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cell"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", keyDER)
}

func TestDownload_withThePlatformsCredentials(t *testing.T) {
	cert, certFile, keyFile := newIdentity(t)
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect led out of TLS") }))
	defer plain.Close()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/plain" {
			http.Redirect(w, r, plain.URL, http.StatusFound)
			return
		}
		_, _ = w.Write([]byte("content"))
	}))
	clients := x509.NewCertPool()
	clients.AddCert(cert)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.StartTLS()
	defer server.Close()
	ca := writePEM(t, "CERTIFICATE", server.Certificate().Raw)
	full := driver.TLSFiles{CA: ca, Cert: certFile, Key: keyFile}
	for _, test := range []struct {
		name, path string
		files      driver.TLSFiles
		ok         bool
	}{
		{"with all", "/", full, true},
		{"not without a certificate", "/", driver.TLSFiles{CA: ca}, false},
		{"not from a stranger", "/", driver.TLSFiles{Cert: certFile, Key: keyFile}, false},
		{"not with a file that is missing", "/", driver.TLSFiles{CA: "/missing"}, false},
		{"not with a file that holds no certificate", "/", driver.TLSFiles{CA: keyFile}, false},
		{"not by a redirect out of TLS", "/plain", full, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newFakeWorld(t)
			got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(&models.DownloadAction{
				From: server.URL + test.path, To: ".", User: "vcap",
			})}, func(o *Options) { o.Work.TLS = test.files })
			if (got.Reason == "") != test.ok {
				t.Errorf("outcome is %+v", got)
			}
		})
	}
}
