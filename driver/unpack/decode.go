package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd frame may make us keep.
const maxWindow = 32 << 20

// sniff names the format of an archive by its first bytes. What is nothing else is a plain tar, or damaged.
func sniff(r *bufio.Reader) (string, error) {
	start, err := r.Peek(4)
	if len(start) == 0 && err != nil {
		return "", fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return TarGz, nil
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return TarZst, nil
	case bytes.HasPrefix(start, []byte("PK\x03\x04")), bytes.HasPrefix(start, []byte("PK\x05\x06")):
		return Zip, nil
	case bytes.HasPrefix(start, []byte("BZh")), bytes.HasPrefix(start, []byte("\xfd7zX")):
		return "", fmt.Errorf("%w: its compression (bzip2 or xz) is not supported, use gzip or zstd", ErrCorrupt)
	}
	return Tar, nil
}

// inflate returns a reader of the tar in a compressed archive.
func inflate(format string, r *bufio.Reader) (io.Reader, error) {
	switch format {
	case Tar:
		return r, nil
	case TarGz:
		members, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		members.Multistream(false)
		return &gunzip{source: r, member: members}, nil
	case TarZst:
		frames, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return &unzstd{frames: frames}, nil
	}
	return nil, fmt.Errorf("unknown archive format %q: use tar, tgz, tar.zst, zip or auto", format)
}

// gunzip reads all members of a gzip file, and ends at what is no member.
type gunzip struct {
	source *bufio.Reader
	member *gzip.Reader
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		n, err := g.member.Read(p)
		if n > 0 && errors.Is(err, io.EOF) {
			return n, nil
		}
		if !errors.Is(err, io.EOF) {
			return n, damaged(err)
		}
		next := g.member.Reset(g.source)
		if next != nil { // the end, or garbage behind it
			return 0, io.EOF
		}
		g.member.Multistream(false)
	}
}

// unzstd reads all frames of a zstd file, and ends at what is no frame.
type unzstd struct {
	frames *zstd.Decoder
	any    bool
}

func (u *unzstd) Read(p []byte) (int, error) {
	n, err := u.frames.Read(p)
	u.any = u.any || n > 0
	switch {
	case errors.Is(err, zstd.ErrMagicMismatch) && u.any:
		return n, io.EOF
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return n, fmt.Errorf("%w: a zstd window above %d MiB", ErrTooLarge, maxWindow>>20)
	}
	return n, damaged(err)
}

// damaged wraps the error of a decoder, but leaves the end alone.
func damaged(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// ahead inflates in a goroutine of its own, so that a second core is used, and counts and hashes what it inflates.
type ahead struct {
	chunks <-chan chunk
	free   chan<- []byte
	now    chunk
	rest   []byte
}

type chunk struct {
	data []byte
	err  error
}

const (
	chunkSize  = 256 << 10
	chunkCount = 4
)

// readAhead reads from r until limit bytes have come, and feeds sum with them.
func readAhead(r io.Reader, limit int64, sum hash.Hash) *ahead {
	chunks, free := make(chan chunk, chunkCount), make(chan []byte, chunkCount)
	for range chunkCount {
		free <- make([]byte, chunkSize)
	}
	go func() {
		defer close(chunks)
		for total := int64(0); ; {
			buf := <-free
			n, err := io.ReadFull(r, buf)
			if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrCorrupt) {
				err = io.EOF
			}
			sum.Write(buf[:n])
			if total += int64(n); total > limit {
				err = fmt.Errorf("%w: it inflates to more than %d bytes", ErrTooLarge, limit)
			}
			chunks <- chunk{data: buf[:n], err: err}
			if err != nil {
				return
			}
		}
	}()
	return &ahead{chunks: chunks, free: free}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.data != nil {
			a.free <- a.now.data[:cap(a.now.data)]
		}
		a.now = <-a.chunks
		a.rest = a.now.data
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}
