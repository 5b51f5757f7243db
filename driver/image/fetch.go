package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/driver"
	"drover/driver/unpack"
)

// maxArchive bounds what is downloaded; unpack bounds what becomes of it.
const maxArchive = 8 << 30

// fetch is one call of Store.Fetch.
type fetch struct {
	store   *Store
	archive Archive
	what    string // for messages
	from    *url.URL
}

// sourceRecord is what is known of where an archive came from.
type sourceRecord struct {
	Dir          string `json:"dir"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// Fetch makes sure that an archive is on this node, unpacked below its prefix. Progress is as with Pull.
func (s *Store) Fetch(ctx context.Context, archive Archive, progress func(Progress)) (driver.Layer, error) {
	f := &fetch{store: s, archive: archive, what: "archive " + Redact(archive.URL)}
	if err := f.check(); err != nil {
		return driver.Layer{}, fmt.Errorf("%s: %w", f.what, err)
	}
	key := f.sourceKey()
	if archive.Checksum != "" {
		if record, ok := f.record(key); ok {
			return driver.Layer{Dir: record.Dir, Stored: s.options.Stored}, nil
		}
	}
	joined := s.flights.join(ctx, "archive "+key, "", func(ctx context.Context, m *meter) error {
		return s.withRoom(ctx, func() error { return f.run(ctx, key, m) })
	})
	stop := watch(s.tune.watch, progress, joined.meter.progress)
	err := s.flights.wait(ctx, "archive "+key, joined)
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return driver.Layer{}, fmt.Errorf("%s: %w", f.what, context.Cause(ctx))
		}
		return driver.Layer{}, explain(f.what, err)
	}
	record, ok := f.record(key)
	if !ok {
		return driver.Layer{}, fmt.Errorf("%s: it vanished from the image directory", f.what)
	}
	return driver.Layer{Dir: record.Dir, Stored: s.options.Stored}, nil
}

// Redact is a URL without user and query, which may hold a password or a signature. Text that is no URL is cut at the
// first question mark.
func Redact(raw string) string {
	parsed, err := url.Parse(raw)
	if err != nil || parsed.Host == "" {
		raw, _, _ = strings.Cut(raw, "?")
		if at := strings.LastIndex(raw, "@"); at >= 0 {
			raw = raw[at+1:]
		}
		return raw
	}
	return (&url.URL{Scheme: parsed.Scheme, Host: parsed.Host, Path: parsed.Path}).String()
}

// check reads and refuses what cannot be fetched.
func (f *fetch) check() error {
	if f.archive.Checksum != "" {
		if _, _, err := newHash(f.archive.Checksum); err != nil {
			return err
		}
	}
	if !path.IsAbs(f.archive.Prefix) && f.archive.Prefix != "" {
		return fmt.Errorf("%w: the directory %q to unpack to is not absolute", ErrBadReference, f.archive.Prefix)
	}
	f.archive.Prefix = path.Clean("/" + f.archive.Prefix)
	if path.IsAbs(f.archive.URL) {
		return nil
	}
	parsed, err := url.Parse(f.archive.URL)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return fmt.Errorf("%w: an archive needs an http or https URL, or an absolute path on the node", ErrBadReference)
	}
	f.from = parsed
	return nil
}

// placeKey says where and to whom an archive is unpacked.
func (f *fetch) placeKey() []string {
	owner := "archive"
	if job := f.job(""); job.Owner != nil {
		owner = fmt.Sprint(job.Owner.UID, ":", job.Owner.GID)
	}
	ids := f.store.options.Stored
	return []string{f.archive.Format, f.archive.Prefix, owner, strconv.FormatUint(uint64(ids.Host), 10), strconv.FormatUint(uint64(ids.Size), 10)}
}

// sourceKey names what was asked for. It is a digest, since a URL may hold secrets.
func (f *fetch) sourceKey() string {
	switch {
	case f.archive.Checksum != "":
		return digestOf(append(f.placeKey(), "checksum", strings.ToLower(f.archive.Checksum))...)
	case f.from != nil && f.archive.CacheKey != "":
		return digestOf(append(f.placeKey(), "cache key", f.archive.CacheKey, Redact(f.archive.URL))...)
	}
	return digestOf(append(f.placeKey(), "source", f.archive.URL)...)
}

// digestOf is one name for several words.
func digestOf(words ...string) string {
	sum := sha256.New()
	for _, word := range words {
		sum.Write([]byte(strconv.Itoa(len(word)) + ":" + word + ","))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func (f *fetch) recordPath(key string) string {
	return filepath.Join(f.store.options.Dir, "sources", key+".json")
}

// record returns what is known of a source whose tree is still here.
func (f *fetch) record(key string) (sourceRecord, bool) {
	found := readSource(f.recordPath(key))
	touch(f.store.notePath(found.Dir))
	return found, isDir(found.Dir)
}

// readSource returns what a record says, or nothing.
func readSource(path string) sourceRecord {
	var found sourceRecord
	raw, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(raw, &found) != nil {
		return sourceRecord{}
	}
	return found
}

// run brings the record of a source up to date, and the tree it names.
func (f *fetch) run(ctx context.Context, key string, m *meter) error {
	return f.store.retry(ctx, f.what, func() error {
		m.done.Store(0)
		return f.try(ctx, key, m)
	})
}

func (f *fetch) try(ctx context.Context, key string, m *meter) error {
	known, ok := f.record(key)
	if !ok {
		known = sourceRecord{}
	}
	source, fresh, err := f.open(ctx, known)
	if err != nil {
		return err
	}
	if source == nil {
		touch(f.recordPath(key))
		return nil
	}
	if source.size > maxArchive {
		return errors.Join(fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrInvalid, source.size, int64(maxArchive)), source.Close())
	}
	m.total.Store(max(source.size, 0))
	content := sha256.New()
	checksum, want, err := f.checksum()
	if err != nil {
		return errors.Join(err, source.Close())
	}
	in := newBody(source.ReadCloser, both{content, checksum}, m, maxArchive)
	defer func() { _ = in.Close() }()
	fresh.Dir, err = f.unpack(ctx, in, content, func() error {
		if got := hex.EncodeToString(checksum.Sum(nil)); want != "" && got != want {
			return fmt.Errorf("%w: it is %s, %s was asked for", ErrChecksum, got, f.archive.Checksum)
		}
		return nil
	})
	if err != nil {
		return err
	}
	raw, err := json.Marshal(fresh)
	if err != nil {
		return err
	}
	f.store.log.Info("fetched an archive", "from", Redact(f.archive.URL), "bytes", m.done.Load())
	return f.store.writeFile(f.recordPath(key), raw, true)
}

// both hashes twice, and is read by neither.
type both struct {
	hash.Hash
	second hash.Hash
}

func (b both) Write(p []byte) (int, error) {
	b.second.Write(p)
	return b.Hash.Write(p)
}

// checksum returns the hash that was asked for, or one that nobody looks at.
func (f *fetch) checksum() (hash.Hash, string, error) {
	if f.archive.Checksum == "" {
		return sha256.New(), "", nil
	}
	return newHash(f.archive.Checksum)
}

// job says how the archive is unpacked into a tree.
func (f *fetch) job(tree string) unpack.Job {
	job := f.store.job(tree)
	job.Format, job.Prefix = f.archive.Format, f.archive.Prefix
	if f.archive.UID != nil || f.archive.GID != nil {
		job.Owner = &unpack.Owner{}
		if f.archive.UID != nil {
			job.Owner.UID = *f.archive.UID
		}
		if f.archive.GID != nil {
			job.Owner.GID = *f.archive.GID
		}
	}
	return job
}

// unpack reads the archive to its end and returns the directory of its tree, which is named by its content.
func (f *fetch) unpack(ctx context.Context, in *body, content hash.Hash, check func() error) (string, error) {
	dir, tree, err := f.store.stage()
	if err != nil {
		return "", err
	}
	stats, err := unpack.Run(ctx, f.store.options.Unpacker, f.job(tree), in)
	err = in.transferError(err, check)
	var final string
	if err == nil {
		final = filepath.Join(f.store.options.Dir, "archives", digestOf(append(f.placeKey(), "content", hex.EncodeToString(content.Sum(nil)))...))
		if err = publish(tree, final); err == nil {
			f.store.note(final, diskUse(stats))
		}
	}
	return final, errors.Join(err, os.RemoveAll(dir))
}

// stream is an archive to be read, and its size, or -1.
type stream struct {
	io.ReadCloser
	size int64
}

// open begins to read the archive. It returns no stream when what is known is still right.
func (f *fetch) open(ctx context.Context, known sourceRecord) (*stream, sourceRecord, error) {
	if f.from == nil {
		return f.openFile(known)
	}
	header := map[string]string{}
	if known.ETag != "" {
		header["If-None-Match"] = known.ETag
	}
	if known.LastModified != "" {
		header["If-Modified-Since"] = known.LastModified
	}
	answer, err := f.get(ctx, header)
	if err != nil {
		return nil, known, err
	}
	if answer.StatusCode == http.StatusNotModified && known.Dir != "" {
		return nil, known, answer.Body.Close()
	}
	if answer.StatusCode != http.StatusOK {
		return nil, known, errors.Join(answered("download", answer.StatusCode, answer.Status), answer.Body.Close())
	}
	fresh := sourceRecord{ETag: answer.Header.Get("ETag"), LastModified: answer.Header.Get("Last-Modified")}
	return &stream{ReadCloser: f.transfer(ctx, answer), size: answer.ContentLength}, fresh, nil
}

// get asks for the archive.
func (f *fetch) get(ctx context.Context, header map[string]string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.archive.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be asked for", ErrBadReference)
	}
	request.Header.Set("User-Agent", "drover")
	for key, value := range header {
		request.Header.Set(key, value)
	}
	return f.store.client.Do(request)
}

// transfer reads an answer, and where that is cut, the rest by further requests, if it is sure to be the rest of the
// same.
func (f *fetch) transfer(ctx context.Context, first *http.Response) *resumable {
	same := first.Header.Get("ETag")
	if strings.HasPrefix(same, "W/") {
		same = ""
	}
	return resumable{
		size: first.ContentLength, idle: f.store.tune.idle, backoff: f.store.tune.backoff,
		warn: func(at int64, err error) {
			f.store.log.Warn("a transfer was cut and goes on", "from", Redact(f.archive.URL), "at", at, "error", words(err))
		},
		open: func(ctx context.Context, offset int64) (part, error) { return f.rest(ctx, offset, same) },
	}.begin(ctx, first.Body)
}

// rest asks for what follows an offset.
func (f *fetch) rest(ctx context.Context, offset int64, same string) (part, error) {
	if same == "" && f.archive.Checksum == "" {
		return part{}, fmt.Errorf("%w: the transfer was cut, and the server gives it no ETag by which it could go on", errCut)
	}
	header := map[string]string{"Range": "bytes=" + strconv.FormatInt(offset, 10) + "-"}
	if same != "" {
		header["If-Range"] = same
	}
	answer, err := f.get(ctx, header)
	if err == nil && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		_ = answer.Body.Close()
		answer, err = f.get(ctx, nil)
	}
	if err != nil {
		return part{}, err
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
		return part{}, errors.Join(answered("download", answer.StatusCode, answer.Status), answer.Body.Close())
	}
	begins, err := beginning(answer)
	if err == nil && same != "" && f.archive.Checksum == "" && answer.Header.Get("ETag") != same {
		err = fmt.Errorf("%w: it changed while it was read", errCut)
	}
	if err != nil {
		return part{}, errors.Join(err, answer.Body.Close())
	}
	return part{ReadCloser: answer.Body, from: begins}, nil
}

// errCut ends a transfer that cannot go on, but may be begun again.
var errCut = fmt.Errorf("%w", io.ErrUnexpectedEOF)

// openFile opens an archive on this node; its inode, size and times are its ETag.
func (f *fetch) openFile(known sourceRecord) (*stream, sourceRecord, error) {
	fd, err := unix.Open(f.archive.URL, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		kind := ErrInvalid
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			kind = ErrNotFound
		}
		return nil, known, fmt.Errorf("%w: open it on this node: %w", kind, err)
	}
	file := os.NewFile(uintptr(fd), f.archive.URL)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, known, errors.Join(err, file.Close())
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, known, errors.Join(fmt.Errorf("%w: it is not a regular file", ErrInvalid), file.Close())
	}
	fresh := sourceRecord{ETag: fmt.Sprint(stat.Dev, stat.Ino, stat.Size, stat.Mtim, stat.Ctim)}
	if known.Dir != "" && known.ETag == fresh.ETag {
		return nil, known, file.Close()
	}
	return &stream{ReadCloser: file, size: stat.Size}, fresh, nil
}
