package action

import (
	"context"
	"crypto/md5"  //nolint:gosec // Diego's checksums and Content-MD5
	"crypto/sha1" //nolint:gosec // Diego's checksums
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
)

// How transfers are tried.
const (
	attempts    = 3
	retryDelay  = time.Second
	dialTimeout = 10 * time.Second
	stallLimit  = 60 * time.Second // without a byte of a download
	maxDownload = 8 << 30
	maxUpload   = 8 << 30
)

// statusError is an HTTP answer that is no success.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("the server answered %d %s", int(e), http.StatusText(int(e)))
}

// connectionError is whatever went wrong on the way to or from a server.
type connectionError struct{ err error }

func (e *connectionError) Error() string { return e.err.Error() }

func (e *connectionError) Unwrap() error { return e.err }

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("redirect refused")

func (r *Runner) download(ctx context.Context, a *models.DownloadAction) error {
	if r.done[a.From+" "+a.To] {
		return nil
	}
	if a.Artifact != "" {
		r.World.Log("Downloading " + a.Artifact + "...")
	}
	size, err := r.fetch(ctx, a)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Log.Warn("download failed", "artifact", a.Artifact, "host", hostOf(a.From), "error", err)
		return &Failure{Text: words("Downloading", a.Artifact, "failed"), Code: 1}
	}
	if a.Artifact != "" {
		r.World.Log("Downloaded " + a.Artifact + " (" + byteSize(size) + ")")
	}
	return nil
}

// fetch downloads to a nameless file, verifies it, and only then lets it into the container.
func (r *Runner) fetch(ctx context.Context, a *models.DownloadAction) (int64, error) {
	sum, want, err := checksum(a)
	if err != nil {
		return 0, err
	}
	file, err := os.CreateTemp(r.Temp, "download-")
	if err != nil {
		return 0, fmt.Errorf("make file for download: %w", err)
	}
	defer func() { _ = file.Close() }()
	if err := os.Remove(file.Name()); err != nil {
		return 0, fmt.Errorf("make file for download: %w", err)
	}
	client, err := newClient(r.Work.TLS)
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	var size int64
	err = retry(ctx, func() error {
		size, err = get(ctx, client, a.From, file)
		return err
	})
	if err != nil {
		return 0, err
	}
	if sum != nil {
		if err := verify(file, sum, want); err != nil {
			return 0, err
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read download: %w", err)
	}
	return size, r.World.Unpack(ctx, a.User, a.To, file)
}

// get writes what is found at an URL to a file, from its beginning.
func get(ctx context.Context, client *http.Client, from string, file *os.File) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(stallLimit, cancel)
	defer stalled.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return 0, bare(err)
	}
	if err := webOnly(request); err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, &connectionError{bare(err)}
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return 0, statusError(response.StatusCode)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("write download: %w", err)
	}
	if err := file.Truncate(0); err != nil {
		return 0, fmt.Errorf("write download: %w", err)
	}
	body := io.LimitReader(touching{response.Body, stalled}, maxDownload+1)
	size, err := io.Copy(file, body)
	if err != nil {
		return 0, bare(err)
	}
	if size > maxDownload {
		return 0, fmt.Errorf("it is larger than %s", byteSize(maxDownload))
	}
	return size, nil
}

// ending is a file of the container, which may grow as fast as it is read or be one huge hole: reading it ends with the
// work.
type ending struct {
	ctx  context.Context //nolint:containedctx // of the one transfer that reads
	file io.Reader
}

func (e ending) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.file.Read(p)
}

// touching puts a stall's timer back with each read.
type touching struct {
	io.Reader
	timer *time.Timer
}

func (t touching) Read(p []byte) (int, error) {
	t.timer.Reset(stallLimit)
	n, err := t.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &connectionError{err}
	}
	return n, err
}

// webOnly refuses what is no address of the web, however it came here.
func webOnly(request *http.Request) error {
	if scheme := request.URL.Scheme; scheme != "http" && scheme != "https" {
		return fmt.Errorf("scheme %q: want http or https", scheme)
	}
	return nil
}

func checksum(a *models.DownloadAction) (hash.Hash, string, error) {
	switch strings.ToLower(a.ChecksumAlgorithm) {
	case "":
		return nil, "", nil
	case "md5":
		return md5.New(), a.ChecksumValue, nil //nolint:gosec // as asked
	case "sha1":
		return sha1.New(), a.ChecksumValue, nil //nolint:gosec // as asked
	case "sha256":
		return sha256.New(), a.ChecksumValue, nil
	}
	return nil, "", fmt.Errorf("checksum algorithm %q: want md5, sha1 or sha256", a.ChecksumAlgorithm)
}

func verify(file *os.File, sum hash.Hash, want string) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(got, want) {
		return fmt.Errorf("its checksum is %s, not %s", got, want)
	}
	return nil
}

func (r *Runner) upload(ctx context.Context, a *models.UploadAction) error {
	if a.Artifact != "" {
		r.World.Log("Uploading " + a.Artifact + "...")
	}
	size, err := r.send(ctx, a)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Log.Warn("upload failed", "artifact", a.Artifact, "host", hostOf(a.To), "error", err)
		return &Failure{Text: words("Uploading", a.Artifact, "failed"), Code: 1}
	}
	if a.Artifact != "" {
		r.World.Log("Uploaded " + a.Artifact + " (" + byteSize(size) + ")")
	}
	return nil
}

func (r *Runner) send(ctx context.Context, a *models.UploadAction) (int64, error) {
	file, err := r.World.Open(a.User, a.From)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.Size() > maxUpload {
		return 0, fmt.Errorf("%s is larger than %s", a.From, byteSize(maxUpload))
	}
	md, sha := md5.New(), sha256.New() //nolint:gosec // Content-MD5
	size, err := io.Copy(io.MultiWriter(md, sha), io.LimitReader(ending{ctx, file}, maxUpload+1))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", a.From, err)
	}
	if size > maxUpload {
		return 0, fmt.Errorf("%s is larger than %s", a.From, byteSize(maxUpload))
	}
	client, err := newClient(r.Work.TLS)
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	header := http.Header{}
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-MD5", base64.StdEncoding.EncodeToString(md.Sum(nil)))
	header.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sha.Sum(nil))+":")
	err = retry(ctx, func() error { return post(ctx, client, a.To, header, file, size) })
	return size, err
}

func post(ctx context.Context, client *http.Client, to string, header http.Header, file io.ReaderAt, size int64) error {
	body := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(file, 0, size)), nil }
	first, _ := body()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, first)
	if err != nil {
		return bare(err)
	}
	request.GetBody, request.ContentLength, request.Header = body, size, header.Clone()
	if err := webOnly(request); err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return &connectionError{bare(err)}
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	if response.StatusCode >= http.StatusBadRequest {
		return statusError(response.StatusCode)
	}
	return nil
}

// retry tries again when the peer could not be reached or said to come back.
func retry(ctx context.Context, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		if err == nil || n == attempts || !temporary(err) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(time.Duration(n) * retryDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// temporary reports whether to try again: when the connection failed, but not when the peers refused each other.
func temporary(err error) bool {
	var status statusError
	if errors.As(err, &status) {
		return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
	}
	var stranger *tls.CertificateVerificationError
	var op *net.OpError
	refused := errors.As(err, &op) && op.Op == "remote error" // TLS's alerts
	if refused || errors.As(err, &stranger) || errors.Is(err, errRedirect) {
		return false
	}
	var lost *connectionError
	return errors.As(err, &lost)
}

// newClient makes a client with the platform's credentials. Its certificate authorities are added to the system's.
func newClient(files driver.TLSFiles) (*http.Client, error) {
	config, err := files.Client()
	if err != nil {
		return nil, err
	}
	return &http.Client{
		CheckRedirect: noDowngrade,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:       config,
			TLSHandshakeTimeout:   dialTimeout,
			ExpectContinueTimeout: time.Second,
			DisableCompression:    true, // an archive is to come as it is
		},
	}, nil
}

func noDowngrade(request *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("%w: more than 10", errRedirect)
	}
	if via[0].URL.Scheme == "https" && request.URL.Scheme != "https" {
		return fmt.Errorf("%w: from https to http", errRedirect)
	}
	return nil
}

// bare takes the URL out of an error: it may hold credentials.
func bare(err error) error {
	for {
		var wrapped *url.Error
		if !errors.As(err, &wrapped) {
			return err
		}
		err = wrapped.Err
	}
}

// hostOf returns what may be told of an URL.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not an URL)"
	}
	return u.Host
}

func words(list ...string) string {
	return strings.Join(strings.Fields(strings.Join(list, " ")), " ")
}

// byteSize writes a size as Cloud Foundry does: one decimal, no trailing zero.
func byteSize(n int64) string {
	const units = "KMGT"
	value, unit := float64(n), "B"
	for i := 0; i < len(units) && value >= 1024; i++ {
		value, unit = value/1024, units[i:i+1]
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + unit
}
