package unpack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// result is what the child tells its parent.
type result struct {
	Stats   Stats  `json:"stats"`
	Kind    string `json:"kind,omitempty"`
	Message string `json:"message,omitempty"`
}

// kinds are the errors that keep their identity across the pipe.
func kinds() map[string]error {
	return map[string]error{"escapes": ErrEscapes, "too-large": ErrTooLarge, "full": ErrFull, "corrupt": ErrCorrupt}
}

// report makes a result of what happened in the child.
func report(stats Stats, err error) result {
	if err == nil {
		return result{Stats: stats}
	}
	out := result{Stats: stats, Kind: "other", Message: err.Error()}
	for kind, known := range kinds() {
		if errors.Is(err, known) {
			out.Kind = kind
		}
	}
	return out
}

// err is report's opposite.
func (r result) err() error {
	if r.Kind == "" {
		return nil
	}
	if known, ok := kinds()[r.Kind]; ok {
		return &kindError{kind: known, message: r.Message}
	}
	return fmt.Errorf("unpack: %s", r.Message)
}

// kindError is an error of the child's: its words, and what it is.
type kindError struct {
	kind    error
	message string
}

func (e *kindError) Error() string { return e.message }

func (e *kindError) Unwrap() error { return e.kind }

// classify gives an error of the kernel's the name that callers know it by.
func classify(err error) error {
	for _, known := range kinds() {
		if errors.Is(err, known) {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EXDEV):
		return ErrEscapes
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
