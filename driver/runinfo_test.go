package driver

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunInfo_comesBackAsItWas(t *testing.T) {
	want := RunInfo{Kind: KindLRP, GUID: "guid-1", Definition: []byte{0, 1, 0xff, 'x'}}
	text, err := EncodeRunInfo(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRunInfo([]byte("\n" + text[:7] + "\n" + text[7:] + " \n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRunInfo_refuses(t *testing.T) {
	pack := func(content string) string {
		var buf bytes.Buffer
		zip := gzip.NewWriter(&buf)
		if _, err := zip.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := zip.Close(); err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(buf.Bytes())
	}
	for name, text := range map[string]string{
		"nothing":              "",
		"what is not base64":   "{}",
		"what is not gzip":     base64.StdEncoding.EncodeToString([]byte("plain")),
		"what is cut off":      pack(`{"kind":"lrp"}`)[:20],
		"what is not JSON":     pack("kind: lrp"),
		"a kind that is no":    pack(`{"kind":"pod","guid":"g"}`),
		"what inflates a bomb": pack(strings.Repeat(" ", maxRunInfo+1)),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := DecodeRunInfo([]byte(text)); !errors.Is(err, ErrBadRunInfo) {
				t.Errorf("error = %v, want %v", err, ErrBadRunInfo)
			}
		})
	}
}

func FuzzDecodeRunInfo(f *testing.F) {
	text, err := EncodeRunInfo(RunInfo{Kind: KindTask, GUID: "g", Definition: []byte("d")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text))
	f.Add([]byte("H4sIAAAAAAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if info, err := DecodeRunInfo(text); err == nil && info.Kind != KindLRP && info.Kind != KindTask {
			t.Errorf("kind %q was taken", info.Kind)
		}
	})
}

func TestIDRange(t *testing.T) {
	for _, row := range []struct {
		name   string
		ids    IDRange
		id     uint32
		want   uint32
		mapped bool
	}{
		{"no user namespace keeps ids", IDRange{}, 2000, 2000, true},
		{"a range shifts ids", IDRange{Host: 1 << 30, Size: 65536}, 2000, 1<<30 + 2000, true},
		{"the last id is mapped", IDRange{Host: 100, Size: 10}, 9, 109, true},
		{"an id beyond the range is not", IDRange{Host: 100, Size: 10}, 10, 110, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, mapped := row.ids.HostID(row.id)
			if got != row.want || mapped != row.mapped {
				t.Errorf("HostID(%d) = %d, %t, want %d, %t", row.id, got, mapped, row.want, row.mapped)
			}
		})
	}
}
