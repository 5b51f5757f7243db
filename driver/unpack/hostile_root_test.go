//go:build root

package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/driver"
	"drover/driver/drivertest"
)

// hostile is an archive that somebody made to harm. What it does to a layer and to other archives is an error or nothing.
type hostile struct {
	name           string
	entries        []drivertest.Entry
	layer, archive error
	notInZip       bool // a zip has no such entries
}

func device(name string, kind byte) drivertest.Entry {
	return drivertest.Entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o6666, Devmajor: 8, Devminor: 1}}
}

// hostiles are the cases, against a directory of the host that lies beside the destination.
func hostiles(host string) []hostile {
	file, dir, link, hard := drivertest.File, drivertest.Dir, drivertest.Symlink, drivertest.Hardlink
	return append([]hostile{
		{"dot dot", []drivertest.Entry{file("../host/evil", 0o644, "x")}, ErrEscapes, ErrEscapes, false},
		{"dot dot in the middle", []drivertest.Entry{dir("a", 0o755), file("a/../../host/evil", 0o644, "x")}, ErrEscapes, ErrEscapes, false},
		{"absolute name", []drivertest.Entry{file(host+"/open", 0o644, "x")}, nil, nil, false},
		{"symlink to a directory, then a file in it", []drivertest.Entry{link("l", host), file("l/evil", 0o644, "x")}, ErrCorrupt, ErrEscapes, false},
		{"climbing symlink, then a file in it", []drivertest.Entry{link("l", "../host"), file("l/evil", 0o644, "x")}, ErrCorrupt, ErrEscapes, false},
		{"symlink over symlink", []drivertest.Entry{link("a", "."), link("a/b", ".."), file("b/host/evil", 0o644, "x")}, nil, ErrEscapes, false},
		{"symlink to a file, then the file", []drivertest.Entry{link("l", host+"/open"), file("l", 0o666, "x")}, nil, nil, false},
		{"directory over a symlink to a directory", []drivertest.Entry{link("l", host), dir("l", 0o700)}, nil, nil, false},
		{"symlink at .", []drivertest.Entry{link(".", host), file("evil", 0o644, "x")}, ErrEscapes, ErrEscapes, false},
		{"symlink at /.", []drivertest.Entry{link("/.", host), file("evil", 0o644, "x")}, ErrEscapes, ErrEscapes, false},
		{"symlink at a/..", []drivertest.Entry{link("a/..", host), file("evil", 0o644, "x")}, ErrEscapes, ErrEscapes, false},
		{"hard link to the shadow", []drivertest.Entry{hard("l", host+"/shadow"), file("l", 0o644, "x")}, ErrCorrupt, ErrCorrupt, true},
		{"hard link that climbs", []drivertest.Entry{hard("l", "../host/shadow"), file("l", 0o644, "x")}, ErrEscapes, ErrEscapes, true},
		{"hard link of the working directory's", []drivertest.Entry{hard("l", "shadow"), file("l", 0o644, "x")}, ErrCorrupt, ErrCorrupt, true},
		{"hard link through a symlink", []drivertest.Entry{link("d", host), hard("l", "d/open"), file("l", 0o644, "x")}, ErrCorrupt, ErrEscapes, true},
		{"whiteout of the directory itself", []drivertest.Entry{file(".wh..", 0o644, "")}, ErrEscapes, nil, false},
		{"whiteout of the parent", []drivertest.Entry{file("a/.wh...", 0o644, "")}, ErrEscapes, nil, false},
		{"whiteout through a symlink", []drivertest.Entry{link("l", host), file("l/.wh.open", 0o644, "")}, ErrCorrupt, ErrEscapes, false},
		{"opaque through a symlink", []drivertest.Entry{link("l", host), file("l/.wh..wh..opq", 0o644, "")}, ErrCorrupt, ErrEscapes, false},
		{"opaque root", []drivertest.Entry{file(".wh..wh..opq", 0o644, "")}, nil, nil, false},
		{"devices", []drivertest.Entry{device("c", tar.TypeChar), device("b", tar.TypeBlock)}, nil, nil, false},
	}, hostileForms(host)...)
}

// hostileForms are cases of what formats allow to say.
func hostileForms(host string) []hostile {
	file, dir := drivertest.File, drivertest.Dir
	long := strings.Repeat("n", 300)
	pax := func(records map[string]string) drivertest.Entry {
		return drivertest.Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755, Format: tar.FormatPAX, PAXRecords: records}}
	}
	gnu := file(strings.Repeat("../", 60)+strings.TrimPrefix(host, "/")+"/evil", 0o644, "x")
	gnu.Format = tar.FormatGNU
	return []hostile{
		{"FIFO", []drivertest.Entry{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o6666}}, file("p", 0o644, "x")}, nil, nil, true},
		{"setuid programs", []drivertest.Entry{file("su", 0o6755, "x"), dir("sg", 0o7777)}, nil, nil, false},
		{"ids that nobody has", []drivertest.Entry{file("f", 0o644, "x").Owned(1<<20, 1<<21-1)}, nil, nil, false},
		{"long name of GNU's that climbs", []drivertest.Entry{gnu}, ErrEscapes, ErrEscapes, false},
		{"name longer than the file system's", []drivertest.Entry{file(long, 0o644, "x")}, errAny, errAny, false},
		{"path longer than the kernel's", []drivertest.Entry{file(strings.Repeat("abcdefghijklmno/", 250)+strings.Repeat("x/", 80)+"f", 0o644, "x")}, ErrTooLarge, ErrTooLarge, false},
		{"NUL in a name", []drivertest.Entry{file("../host/evil\x00.txt", 0o644, "x")}, errAny, errAny, false},
		{"bytes that are no UTF-8", []drivertest.Entry{file("\xff\xfe/\xc0\xae\xc0\xae/\xc0\xafevil", 0o644, "x")}, nil, nil, false},
		{"backslashes", []drivertest.Entry{file(`..\..\host\evil`, 0o644, "x")}, nil, nil, false},
		{"names that differ in case", []drivertest.Entry{drivertest.Symlink("L", host), dir("l", 0o755), file("l/evil", 0o644, "x")}, nil, nil, false},
		{"an overlay's attributes", []drivertest.Entry{pax(map[string]string{
			"SCHILY.xattr.user.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.security.selinux": "x",
		})}, nil, nil, true},
	}
}

// errAny is any error at all.
var errAny = errors.New("any")

// zipOf writes the same entries as a zip, as careless as its makers are.
func zipOf(t *testing.T, entries []drivertest.Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, entry := range entries {
		header := &zip.FileHeader{Name: entry.Name, Method: zip.Deflate}
		header.SetMode(entry.FileInfo().Mode())
		body := entry.Body
		if entry.Typeflag == tar.TypeSymlink {
			body = []byte(entry.Linkname)
		}
		out, err := w.CreateHeader(header)
		if err == nil && len(body) > 0 {
			_, err = out.Write(body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// surroundings is the fingerprint of all that lies around a destination.
func surroundings(t *testing.T, host string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(host))
	if err != nil {
		t.Fatal(err)
	}
	text := fingerprint(t, host)
	for _, entry := range entries {
		if entry.Name() != "dest" {
			text += " " + entry.Name()
		}
	}
	return text
}

// rawTar writes entries that archive/tar's writer would refuse.
func rawTar(t *testing.T, entries []drivertest.Entry) []byte {
	t.Helper()
	var end [1024]byte
	var all []byte
	for _, entry := range entries {
		name := entry.Name
		if !strings.Contains(name, "\x00") {
			all = append(all, bytes.TrimSuffix(drivertest.Tar(t, entry), end[:])...)
			continue
		}
		// A PAX record is counted, so that it can hold what a C string cannot.
		record := " path=" + name + "\n"
		record = fmt.Sprint(len(record)+2) + record
		pax := drivertest.Tar(t, drivertest.File("pax", 0o644, record))
		pax[156] = tar.TypeXHeader
		checksum(pax)
		entry.Name = "plain"
		all = append(all, bytes.TrimSuffix(pax, end[:])...)
		all = append(all, bytes.TrimSuffix(drivertest.Tar(t, entry), end[:])...)
	}
	return append(all, end[:]...)
}

// checksum makes a changed tar header right again.
func checksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header[:512] {
		sum += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// TestHostile holds that no archive, of whatever form, changes the host: the tree around the destination is the same before
// and after, and all that is written belongs to ids that the host does not use. First as the driver does it; then each
// of the two fences alone, for the other one may have a hole: names resolved below the destination, without a namespace.
func TestHostile(t *testing.T) {
	host, dest := neighbour(t)
	t.Chdir(host)
	before := surroundings(t, host)
	vcap := &Owner{UID: driver.VcapID, GID: driver.VcapID}
	for _, row := range hostiles(host) {
		for form, archive := range forms(t, row) {
			for _, confined := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s confined=%v", row.name, form, confined), func(t *testing.T) {
					if form != "zip" {
						tryHostile(t, Job{Dest: dest, IDs: stored(), Whiteouts: true}, archive, row.layer, confined)
					}
					tryHostile(t, Job{Dest: dest, IDs: stored(), Owner: vcap}, archive, row.archive, confined)
					if after := surroundings(t, host); after != before {
						t.Fatal("the host's tree has changed")
					}
				})
			}
		}
	}
}

// forms are a case's archives by their format.
func forms(t *testing.T, row hostile) map[string][]byte {
	t.Helper()
	raw := rawTar(t, row.entries)
	all := map[string][]byte{"tar": raw, "tgz": gzipped(t, raw), "tar.zst": zstded(t, raw)}
	if !row.notInZip {
		all["zip"] = zipOf(t, row.entries)
	}
	return all
}

func tryHostile(t *testing.T, job Job, archive []byte, want error, confined bool) {
	t.Helper()
	if err := os.MkdirAll(job.Dest, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if confined {
		_, err = Run(t.Context(), helper(t), job, bytes.NewReader(archive))
		ownedBy(t, job.Dest, stored())
	} else {
		_, err = extractTo(t, job.Dest, job.withDefaults(), archive)
	}
	if (err != nil) != (want != nil) || want != nil && !errors.Is(want, errAny) && !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	if err := os.RemoveAll(job.Dest); err != nil {
		t.Fatal(err)
	}
}

// The other fence alone: what names paths as it likes, in the child's place, reaches nothing of the host.
func TestHostile_childAlone(t *testing.T) {
	host, dest := neighbour(t)
	for dir := filepath.Dir(host); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // only the namespace is to keep it out
			t.Fatal(err)
		}
	}
	before := surroundings(t, host)
	job := Job{Dest: dest, IDs: stored()}
	_, err := Run(t.Context(), append(helper(t)[:1], asBurglar, host), job, strings.NewReader(""))
	if err == nil || !strings.Contains(err.Error(), `"burglar: nothing found\n"`) {
		t.Errorf("it says %v", err)
	}
	if surroundings(t, host) != before {
		t.Error("the host's tree has changed")
	}
}
