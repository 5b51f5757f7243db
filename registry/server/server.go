// Package server runs a private image registry: the OCI distribution API over a directory, with or without TLS.
//
// Open prepares a registry and binds its address, so that Addr is known; Serve answers until its context ends, then
// lets running requests finish for two seconds. Content is written by rename, so a killed registry loses no image
// that it had accepted.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"drover/registry"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage that Open configures
	"github.com/sirupsen/logrus"
)

// drainTime is how long running requests may take once Serve's context has ended.
const drainTime = 2 * time.Second

// Server is one registry, bound to its address.
type Server struct {
	app      *handlers.App
	http     *http.Server
	listener net.Listener
}

// Open makes the content directory and listens; nothing is answered before Serve. The distribution library logs each
// request to a logger of its own, which Open silences for the whole process: what went wrong is told to log instead.
func Open(ctx context.Context, config registry.Config, log *slog.Logger) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make registry directory: %w", err)
	}
	logrus.SetLevel(logrus.PanicLevel)
	app, err := newApp(ctx, config.Dir)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, config)
	if err != nil {
		return nil, errors.Join(err, app.Shutdown())
	}
	return &Server{
		app:      app,
		listener: listener,
		http: &http.Server{
			Handler:           tellFailures(app, log),
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Addr is the address that the registry listens on, with its real port.
func (s *Server) Addr() string {
	return s.listener.Addr().String()
}

// Serve answers requests until ctx ends; it returns nil after a clean end.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("serve images: %w", err), s.app.Shutdown())
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := s.http.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	return errors.Join(err, s.app.Shutdown())
}

// Close ends the server at once; it is for a Server that is never served.
func (s *Server) Close() error {
	return errors.Join(s.listener.Close(), s.app.Shutdown())
}

// newApp builds the distribution application, which tells of a bad configuration by panicking.
func newApp(ctx context.Context, dir string) (app *handlers.App, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("set up image storage in %s: %v", dir, reason)
		}
	}()
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("make upload secret: %w", err)
	}
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": dir},
			"delete":     configuration.Parameters{"enabled": true},
		},
	}
	config.HTTP.Secret = hex.EncodeToString(secret)
	config.HTTP.RelativeURLs = true
	config.Catalog.MaxEntries = 1000
	return handlers.NewApp(ctx, config), nil
}

func listen(ctx context.Context, config registry.Config) (net.Listener, error) {
	var options *tls.Config
	if config.TLS.Enabled() {
		var err error
		if options, err = tlsConfig(config.TLS); err != nil {
			return nil, err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for image requests: %w", err)
	}
	if options == nil {
		return listener, nil
	}
	return tls.NewListener(listener, options), nil
}

func tlsConfig(files registry.TLSFiles) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("load registry certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if files.ClientCA == "" {
		return config, nil
	}
	authorities, err := os.ReadFile(files.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read client authorities: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("read client authorities: %s holds no certificate", files.ClientCA)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}
