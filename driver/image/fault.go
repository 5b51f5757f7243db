package image

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"drover/driver/unpack"
)

// kinds are the errors that explain leaves as they are.
func kinds() []error {
	return []error{ErrBadReference, ErrNotFound, ErrUnauthorized, ErrUnreachable, ErrRefused, ErrChecksum, ErrInvalid, ErrFull}
}

// explain makes an error of the libraries one of ours: what was wanted, what kind it is, what happened, what to do.
// Libraries' errors are kept as words only, and without the URLs in them.
func explain(what string, err error) error {
	err = primary(err)
	if cause := contextError(err); cause != nil {
		return fmt.Errorf("%s: %w", what, cause)
	}
	for _, kind := range kinds() {
		if errors.Is(err, kind) {
			return fmt.Errorf("%s: %w", what, known(kind, err))
		}
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answered(what, answer.StatusCode, answer.Error())
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("%s: %w: the server speaks plain http; an operator can list it as an insecure registry", what, ErrRefused)
	}
	switch {
	case errors.Is(err, unpack.ErrFull), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s: %w: free space in the image directory: %s", what, ErrFull, words(err))
	case errors.Is(err, unpack.ErrCorrupt), errors.Is(err, unpack.ErrEscapes), errors.Is(err, unpack.ErrTooLarge):
		return fmt.Errorf("%s: %w: %w", what, ErrInvalid, err)
	case isCertificate(err):
		return fmt.Errorf("%s: %w: the server's certificate is not trusted, add its authority to this node or to the plugin's options: %s",
			what, ErrRefused, words(err))
	case isNetwork(err):
		return fmt.Errorf("%s: %w: check the host's name and this node's network: %s", what, ErrUnreachable, words(err))
	}
	return fmt.Errorf("%s: %w", what, errors.New(words(err)))
}

func isKnown(err error) bool {
	return slices.ContainsFunc(kinds(), func(kind error) bool { return errors.Is(err, kind) })
}

// primary is the error of the https attempt, where plain http was refused after it.
func primary(err error) error {
	var request *url.Error
	if errors.Is(err, ErrRefused) && errors.As(err, &request) && !errors.Is(request, ErrRefused) {
		return request
	}
	return err
}

// contextError is the reason when an error came of a context that has ended.
func contextError(err error) error {
	if errors.Is(err, context.Canceled) && !errors.Is(err, errStalled) && !errors.Is(err, errSilent) {
		return context.Canceled
	}
	return nil
}

// known keeps one of our own errors, but not the URLs that the http client has put around it.
func known(kind, err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		if errors.Is(request.Err, kind) {
			return request.Err
		}
		return kind
	}
	return err
}

// answered is the error for an answer other than 200.
func answered(what string, status int, text string) error {
	kind, cure := ErrInvalid, "the server's answer is not understood"
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		kind, cure = ErrUnauthorized, "it does not exist, or these credentials may not read it"
	case status == http.StatusNotFound || status == http.StatusGone:
		kind, cure = ErrNotFound, "check its name and tag"
	case status == http.StatusTooManyRequests || status >= 500:
		kind, cure = ErrUnreachable, "the server cannot answer now, try again later"
	}
	return fmt.Errorf("%s: %w: %s: %.500s", what, kind, cure, text)
}

// words is an error's text without the URL of a request, which may carry a signature or a password.
func words(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}

func isCertificate(err error) bool {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}
