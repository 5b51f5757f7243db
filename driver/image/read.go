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
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"drover/driver/unpack"
)

// errStalled is why a transfer is cancelled that brings no bytes.
var errStalled = errors.New("no byte came for longer than the plugin option pull_activity_timeout allows")

// body is what is read of a transfer: counted, hashed and bounded.
type body struct {
	source io.ReadCloser
	sum    hash.Hash
	meter  *meter
	left   int64
	failed error
	closed atomic.Bool
}

func newBody(source io.ReadCloser, sum hash.Hash, m *meter, limit int64) *body {
	return &body{source: source, sum: sum, meter: m, left: limit}
}

// Read fails with ErrInvalid when the source has more than was announced.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.source.Read(p)
	b.sum.Write(p[:n])
	b.meter.add(n)
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
	return b.source.Close()
}

// transferError chooses what to say of a transfer that has ended, perhaps with err: that reading failed, or that check
// finds it is not what was asked for.
func (b *body) transferError(err error, check func() error) error {
	switch {
	case err == nil:
		return check()
	case b.failed == nil:
		return err
	}
	return b.failed
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

// errSilent is why a question is given up that gets no answer.
var errSilent = errors.New("no answer came for too long")

// late says that a request has taken too long, in place of whatever the libraries made of that.
func late(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	for _, reason := range []error{errStalled, errSilent} {
		if errors.Is(context.Cause(ctx), reason) {
			return fmt.Errorf("%w: %w", ErrUnreachable, reason)
		}
	}
	return err
}

// isFull says whether a disk was full.
func isFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, unpack.ErrFull) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// isNetwork says whether an error is the network's or the peer's.
func isNetwork(err error) bool {
	var network net.Error
	var request *url.Error
	var name *net.DNSError
	return errors.As(err, &network) || errors.As(err, &request) || errors.As(err, &name) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, errStalled) || errors.Is(err, errSilent)
}

// temporary says whether a transfer's error may be gone soon.
func temporary(err error) bool {
	err = primary(err)
	var answer *transport.Error
	if errors.Is(err, ErrUnreachable) || errors.As(err, &answer) && answer.StatusCode >= 500 {
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
