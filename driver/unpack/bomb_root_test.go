//go:build root

package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"drover/driver"
	"drover/driver/drivertest"
)

const (
	bombLimit = 64 << 20 // of the archives' files
	bombPeak  = 64 << 20 // of the child's memory
)

// TestBombs holds that what grows without measure is stopped at the job's limit, in bounded memory, as a layer and as any
// other archive. All are small; their time is limited by the context, which TestRun_isCancelled is about.
func TestBombs(t *testing.T) {
	many := &bytes.Buffer{}
	manyDevices(t, many, DefaultMaxEntries+1)
	rows := []struct {
		name    string
		archive func() io.Reader
		want    error
	}{
		{"4 GiB in a gzip", func() io.Reader { return bomb(t, 4<<30) }, ErrTooLarge},
		{"4 GiB of zeros behind a gzip's tar", func() io.Reader { return gzippedZeros(t, drivertest.Tar(t), 4<<30) }, ErrTooLarge},
		{"4 GiB in 131 KB of zstd", func() io.Reader { return bytes.NewReader(zstdZeros(4 << 30)) }, ErrTooLarge},
		{"4 GiB in the members of a gzip", func() io.Reader { return manyMembers(t, 4<<30) }, ErrTooLarge},
		{"a zstd window of 128 MiB", func() io.Reader { return bytes.NewReader(wideWindow(t)) }, ErrTooLarge},
		{"8 PiB of a sparse file", func() io.Reader { return bytes.NewReader(sparse(t, 8<<50)) }, ErrTooLarge},
		{"a long name of 1 GiB", func() io.Reader { return longName(tar.TypeGNULongName, 1<<30) }, errAny},
		{"a header of 1 GiB", func() io.Reader { return longName(tar.TypeXHeader, 1<<30) }, errAny},
		{"1,000,001 entries", func() io.Reader { return bytes.NewReader(many.Bytes()) }, ErrTooLarge},
		{"archives in archives, which stay as they are", func() io.Reader { return bytes.NewReader(nested(t)) }, nil},
	}
	for _, row := range rows {
		for _, layer := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s layer=%v", row.name, layer), func(t *testing.T) { detonate(t, layer, row.archive(), row.want) })
		}
	}
	for name, archive := range map[string][]byte{
		"5 GiB in 42 KB of a zip whose files overlap": overlapping(t, 250, 20<<20), "1,000,001 entries of a zip": overlapping(t, DefaultMaxEntries+1, 0),
		"a zip that lies about its size": lyingZip(t),
	} {
		t.Run(name, func(t *testing.T) {
			want := ErrTooLarge
			if strings.Contains(name, "lies") {
				want = ErrCorrupt
			}
			detonate(t, false, bytes.NewReader(archive), want)
		})
	}
}

// detonate unpacks a bomb and looks at the damage.
func detonate(t *testing.T, layer bool, archive io.Reader, want error) {
	t.Helper()
	job := Job{Dest: t.TempDir(), IDs: stored(), Whiteouts: layer, MaxBytes: bombLimit}
	if !layer {
		job.Owner, job.Prefix = &Owner{UID: driver.VcapID, GID: driver.VcapID}, "home/vcap"
	}
	_, err := Run(t.Context(), append(helper(t)[:1], asWeighed), job, archive)
	if (err != nil) != (want != nil) || want != nil && !errors.Is(want, errAny) && !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	status, err := os.ReadFile(filepath.Join(job.Dest, ".peak"))
	if err != nil {
		status, err = os.ReadFile(filepath.Join(job.Dest, job.Prefix, ".peak"))
	}
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, scanErr := fmt.Sscan(rest, &kib); !found || scanErr != nil {
		t.Fatalf("memory is unknown: %v, %v", err, scanErr)
	}
	t.Logf("peak of %d KiB", kib)
	if kib<<10 > bombPeak {
		t.Errorf("it took %d KiB of memory", kib)
	}
	if used := diskOf(t, job.Dest); used > bombLimit+(1<<20) {
		t.Errorf("it left %d bytes on the disk", used)
	}
}

func diskOf(t *testing.T, dir string) int64 {
	t.Helper()
	var used int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			used += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// piped runs a writer whose output nobody has to keep.
func piped(t *testing.T, write func(io.Writer) error) io.Reader {
	t.Helper()
	out, in := io.Pipe()
	go func() { _ = in.CloseWithError(write(in)) }()
	t.Cleanup(func() { _ = out.Close() })
	return out
}

func gzippedZeros(t *testing.T, start []byte, size int64) io.Reader {
	t.Helper()
	return piped(t, func(w io.Writer) error {
		zip := gzip.NewWriter(w)
		_, err := io.Copy(zip, io.MultiReader(bytes.NewReader(start), io.LimitReader(zeroes{}, size)))
		return errors.Join(err, zip.Close())
	})
}

// manyMembers begins with a tar and goes on with members of 1 MiB of zeros.
func manyMembers(t *testing.T, size int64) io.Reader {
	t.Helper()
	member := gzipped(t, make([]byte, 1<<20))
	return piped(t, func(w io.Writer) error {
		_, err := w.Write(gzipped(t, drivertest.Tar(t)))
		for written := int64(0); err == nil && written < size; written += 1 << 20 {
			_, err = w.Write(member)
		}
		return err
	})
}

// zstdZeros is a frame of blocks that each repeat one byte 128 KiB times: 4 bytes for 128 KiB.
func zstdZeros(size int64) []byte {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38}
	for ; size > 0; size -= 128 << 10 {
		frame = append(frame, 0x02, 0x00, 0x10, 0x00)
	}
	return append(frame, 0x01, 0x00, 0x00)
}

func wideWindow(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(128<<20), zstd.WithSingleSegment(false))
	if err == nil {
		_, err = w.Write(drivertest.Tar(t))
	}
	if err = errors.Join(err, w.Flush(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sparse is a file of GNU's that is one hole.
func sparse(t *testing.T, size int64) []byte {
	t.Helper()
	raw := drivertest.Tar(t, drivertest.File("holes", 0o644, ""))
	raw[156] = tar.TypeGNUSparse
	copy(raw[257:265], "ustar  \x00")
	base256 := func(at int) {
		raw[at] = 0x80
		binary.BigEndian.PutUint64(raw[at+4:], uint64(size))
	}
	base256(386) // the place of an empty piece: the end
	copy(raw[398:410], "00000000000\x00")
	base256(483) // the real size
	checksum(raw)
	return raw
}

// longName says that much of a name or header is to come, and lets it come.
func longName(kind byte, size int64) io.Reader {
	header := make([]byte, 512)
	copy(header, "././@LongLink")
	copy(header[100:], "0000644\x000000000\x000000000\x00")
	copy(header[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	header[156] = kind
	copy(header[257:], "ustar  \x00")
	checksum(header)
	return io.MultiReader(bytes.NewReader(header), io.LimitReader(zeroes{}, size))
}

// manyDevices writes entries that cost nothing but their number.
func manyDevices(t *testing.T, w io.Writer, count int) {
	t.Helper()
	raw := drivertest.Tar(t, device("d", tar.TypeChar))[:512]
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat(raw, 1000)
	for ; count > 0; count -= 1000 {
		if _, err := zip.Write(block[:512*min(count, 1000)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
}

func nested(t *testing.T) []byte {
	t.Helper()
	body := zstdZeros(4 << 30)
	for range 5 {
		body = gzipped(t, drivertest.Tar(t, drivertest.File("inner.tgz", 0o644, string(body))))
	}
	return body
}

// overlapping is a zip whose table names one file many times.
func overlapping(t *testing.T, count int, size int64) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	out, err := w.Create("file0000")
	if err == nil {
		_, err = io.CopyN(out, zeroes{}, size)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	raw := buf.Bytes()
	start, end := bytes.Index(raw, []byte("PK\x01\x02")), bytes.LastIndex(raw, []byte("PK\x05\x06"))
	table := bytes.NewBuffer(bytes.Clone(raw[:start]))
	record := bytes.Clone(raw[start:end])
	for n := range count {
		copy(record[46:54], fmt.Sprintf("%08d", n))
		_, _ = table.Write(record)
	}
	last := bytes.Clone(raw[end:])
	binary.LittleEndian.PutUint16(last[8:], uint16(count))
	binary.LittleEndian.PutUint16(last[10:], uint16(count))
	binary.LittleEndian.PutUint32(last[12:], uint32(count*len(record)))
	return append(table.Bytes(), last...)
}

// lyingZip holds more than its table says.
func lyingZip(t *testing.T) []byte {
	t.Helper()
	raw := overlapping(t, 1, 8<<20)
	table := bytes.Index(raw, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(raw[table+24:], 1)
	return raw
}
