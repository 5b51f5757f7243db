package image

import (
	"context"
	"crypto/md5"  //nolint:gosec // Cloud Controller names old packages by it
	"crypto/sha1" //nolint:gosec // Cloud Controller names droplets by it
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// errStalled is why a transfer is cancelled that brings no bytes.
var errStalled = errors.New("no byte came for too long")

// body is what is read of a transfer: counted, hashed, bounded, and given up when nothing comes.
type body struct {
	source io.ReadCloser
	sum    hash.Hash
	meter  *meter
	left   int64
	idle   time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	failed error
	closed atomic.Bool
}

func newBody(source io.ReadCloser, sum hash.Hash, m *meter, limit int64, idle time.Duration, cancel context.CancelCauseFunc) *body {
	b := &body{source: source, sum: sum, meter: m, left: limit, idle: idle, cancel: cancel}
	b.timer = time.AfterFunc(idle, func() { cancel(errStalled) })
	b.timer.Stop()
	return b
}

// Read fails with ErrInvalid when the source has more than was announced. Only time spent waiting counts as idle.
func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.source.Read(p)
	b.timer.Stop()
	b.sum.Write(p[:n])
	b.meter.done.Add(int64(n))
	if b.left -= int64(n); b.left < 0 {
		err = fmt.Errorf("%w: more bytes than announced or allowed", ErrInvalid)
	}
	if err != nil && !errors.Is(err, io.EOF) && !b.closed.Load() {
		b.failed = err
	}
	return n, err
}

// Close lets a waiting Read go.
func (b *body) Close() error {
	b.closed.Store(true)
	b.timer.Stop()
	return b.source.Close()
}

// transferError chooses what to say of a transfer that has ended, perhaps with err: that nothing came, that reading
// failed, or that check finds it is not what was asked for.
func (b *body) transferError(ctx context.Context, err error, check func() error) error {
	switch {
	case errors.Is(context.Cause(ctx), errStalled):
		return fmt.Errorf("%w: the server stopped sending: %w", ErrUnreachable, errStalled)
	case err == nil:
		return check()
	case b.failed == nil:
		return err
	case temporary(b.failed) || errors.Is(b.failed, ErrInvalid):
		return b.failed
	}
	return errors.Join(check(), b.failed) // the registry client found out first that the content is wrong
}

// newHash returns the hash of a checksum and its lower-case digits.
func newHash(checksum string) (hash.Hash, string, error) {
	kind, digits, _ := strings.Cut(strings.ToLower(checksum), ":")
	var sum hash.Hash
	switch kind {
	case "sha256":
		sum = sha256.New()
	case "sha1":
		sum = sha1.New() //nolint:gosec // as asked for
	case "md5":
		sum = md5.New() //nolint:gosec // as asked for
	default:
		return nil, "", fmt.Errorf("%w: checksum %q is none of sha256:…, sha1:…, md5:…", ErrBadReference, checksum)
	}
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != sum.Size() {
		return nil, "", fmt.Errorf("%w: checksum %q needs %d hexadecimal digits", ErrBadReference, checksum, 2*sum.Size())
	}
	return sum, digits, nil
}

// verify compares what was read with what was asked for.
func verify(sum hash.Hash, want v1.Hash) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.Hex {
		return fmt.Errorf("%w: %s was asked for, %s:%s came", ErrChecksum, want, want.Algorithm, got)
	}
	return nil
}

// isNetwork says whether an error is the network's or the peer's.
func isNetwork(err error) bool {
	var network net.Error
	var request *url.Error
	var name *net.DNSError
	return errors.As(err, &network) || errors.As(err, &request) || errors.As(err, &name) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, errStalled)
}

// temporary says whether a transfer's error may be gone soon.
func temporary(err error) bool {
	err = primary(err)
	if errors.Is(err, ErrUnreachable) {
		return true
	}
	return isNetwork(err) && !isCertificate(err) && !errors.Is(err, http.ErrSchemeMismatch) && !isKnown(err)
}

// retry tries up to three times, as long as the error is the network's.
func (s *Store) retry(ctx context.Context, what string, try func() error) error {
	wait := s.tune.backoff
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || attempt == 3 || !temporary(err) || ctx.Err() != nil {
			return err
		}
		s.log.Warn("a transfer failed and is tried again", "what", what, "attempt", attempt, "error", words(err))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
			wait *= 2
		}
	}
}
