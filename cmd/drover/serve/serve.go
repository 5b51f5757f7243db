// Package serve is `drover bridge` as a value: its configuration, its listeners, and an orderly end.
//
// Load reads a configuration file over the defaults and Check says everything that is wrong with it. New takes a
// Config and the bridge.Runtime that answers, Run serves until its context ends. In between are the BBS door and
// cc-uploader behind mutual TLS, the file server in plain HTTP, and the notifier that tells Cloud Controller about
// Tasks that have ended.
//
// When Run is told to end it takes no new connections, lets what is under way finish (uploads for a quarter of an
// hour, as Diego's cc-uploader does), and returns nil.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"drover/bridge"
	"drover/bridge/assets"
	"drover/bridge/bbs"
	"drover/bridge/cc"
	"drover/bridge/mtls"
	"drover/bridge/notify"
)

const (
	// callsDrain is for calls to the BBS API, which last seconds.
	callsDrain = 30 * time.Second
	// filesDrain is for uploads and downloads.
	filesDrain = 15 * time.Minute
)

// Addresses are where the bridge listens.
type Addresses struct {
	BBS      net.Addr
	Files    net.Addr
	Uploader net.Addr
}

// Bridge serves the BBS API, static files and uploads. Make it with New.
type Bridge struct {
	listen   Listen
	identity *mtls.Identity
	files    *assets.FileServer
	bbs      *http.Server
	static   *http.Server
	uploader *http.Server
	notifier *notify.Notifier
	log      *slog.Logger
}

// New makes a Bridge out of a checked Config; nothing listens yet.
func New(config Config, runtime bridge.Runtime, log *slog.Logger) (*Bridge, error) {
	identity, err := mtls.Files(*config.TLS).Load()
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	toCC, err := config.toCC().Load()
	if err != nil {
		return nil, fmt.Errorf("cc: %w", err)
	}
	files, err := assets.Files(config.StaticDir)
	if err != nil {
		return nil, err
	}
	return &Bridge{
		listen:   *config.Listen,
		identity: identity,
		files:    files,
		bbs:      bbs.NewServer(bbs.Handler(runtime, log), log),
		static:   transfers(files, log),
		uploader: transfers(assets.Uploads(toCC.Client(), log), log),
		notifier: notify.New(runtime, cc.NewClient(toCC.Client()).TaskCompleted, log),
		log:      log,
	}, nil
}

// transfers wraps a handler whose bodies may take as long as they take.
func transfers(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// door is one listener with its server and the time it has to end in.
type door struct {
	name     string
	server   *http.Server
	listener net.Listener
	drain    time.Duration
}

// Run listens, calls ready with the addresses, and serves until ctx ends.
func (b *Bridge) Run(ctx context.Context, ready func(Addresses)) error {
	defer func() { _ = b.files.Close() }()
	doors, err := b.open(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range doors {
		group.Go(func() error {
			if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", d.name, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			return d.close(context.WithoutCancel(ctx))
		})
	}
	group.Go(func() error {
		b.notifier.Run(ctx)
		return nil
	})
	ready(Addresses{
		BBS:      doors[0].listener.Addr(),
		Files:    doors[1].listener.Addr(),
		Uploader: doors[2].listener.Addr(),
	})
	return group.Wait()
}

// open takes all addresses or none.
func (b *Bridge) open(ctx context.Context) ([]door, error) {
	secured := b.identity.Server()
	doors := []door{
		{name: "bbs", server: b.bbs, drain: callsDrain},
		{name: "files", server: b.static, drain: filesDrain},
		{name: "uploader", server: b.uploader, drain: filesDrain},
	}
	addresses := []string{b.listen.BBS, b.listen.Files, b.listen.Uploader}
	for i := range doors {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addresses[i])
		if err != nil {
			for _, d := range doors[:i] {
				_ = d.listener.Close()
			}
			return nil, fmt.Errorf("listen.%s: %w", doors[i].name, err)
		}
		if doors[i].server != b.static {
			listener = tls.NewListener(listener, secured)
		}
		doors[i].listener = listener
	}
	return doors, nil
}

// close ends a door in an orderly way, and by force when its time is up.
func (d door) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.drain)
	defer cancel()
	if err := d.server.Shutdown(ctx); err != nil {
		_ = d.server.Close()
		return fmt.Errorf("end %s: %w", d.name, err)
	}
	return nil
}
