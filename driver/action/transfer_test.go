package action

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"code.cloudfoundry.org/bbs/models"
)

// newDownloads serves files in all moods.
func newDownloads(t *testing.T) *httptest.Server {
	t.Helper()
	var busy atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/file", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("content")) })
	mux.HandleFunc("/private", func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "canary" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte("content"))
	})
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		if busy.Add(1) < 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("content"))
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func TestDownload(t *testing.T) {
	server := newDownloads(t)
	sum := sha256.Sum256([]byte("content"))
	private := strings.Replace(server.URL, "http://", "http://me:canary@", 1) + "/private"
	const failed = "Downloading thing failed"
	for _, test := range []struct {
		name           string
		from           string
		algorithm, sum string
		reason         string
	}{
		{"a file", server.URL + "/file", "", "", ""},
		{"a verified file", server.URL + "/file", "sha256", strings.ToUpper(hex.EncodeToString(sum[:])), ""},
		{"a file behind a password", private, "", "", ""},
		{"a file of a server that was busy", server.URL + "/busy", "", "", ""},
		{"no file that differs", server.URL + "/file", "md5", "00", failed},
		{"no file with an unknown checksum", server.URL + "/file", "crc", "00", failed},
		{"no file that is missing", server.URL + "/none?token=canary", "", "", failed},
		{"no half file", server.URL + "/cut", "", "", failed},
		{"nothing but web addresses", "file:///etc/passwd?canary", "", "", failed},
		{"no nonsense", "http://[::1?canary", "", "", failed},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newFakeWorld(t)
			var log strings.Builder
			got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(&models.DownloadAction{
				Artifact: "thing", From: test.from, To: "/there", User: "vcap", ChecksumAlgorithm: test.algorithm, ChecksumValue: test.sum,
			})}, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			if got.Reason != test.reason {
				t.Errorf("reason is %q, want %q; %s", got.Reason, test.reason, &log)
			}
			if text, ok := w.unpacked["vcap /there"]; ok != (test.reason == "") || ok && text != "content" {
				t.Errorf("unpacked: %q", w.unpacked)
			}
			if all := strings.Join(w.log, "\n") + log.String(); strings.Contains(all, "canary") {
				t.Errorf("secrets are told: %s", all)
			}
			want := "Downloading thing...|Downloaded thing (7B)"
			if test.reason != "" {
				want = "Downloading thing..."
			}
			if got := strings.Join(w.log, "|"); got != want {
				t.Errorf("log is %q, want %q", got, want)
			}
		})
	}
}

func TestDownload_skipsWhatIsThere(t *testing.T) {
	w := newFakeWorld(t)
	got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(&models.DownloadAction{
		Artifact: "droplet", From: "http://192.0.2.1/x", To: ".", User: "vcap",
	})}, func(o *Options) { o.Work.Done = []string{"http://192.0.2.1/x ."} })
	if got.Reason != "" || len(w.log) != 0 || len(w.unpacked) != 0 {
		t.Errorf("outcome %+v, log %q", got, w.log)
	}
}

func TestDownload_triesAgain(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		first, err := listener.Accept()
		if err != nil {
			return
		}
		_ = first.Close()                                                                                                              // a connection that is lost
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("content")) })) //nolint:gosec // a test's
	}()
	w := newFakeWorld(t)
	got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(&models.DownloadAction{
		From: "http://" + listener.Addr().String(), To: ".", User: "vcap",
	})}, nil)
	if got.Reason != "" || w.unpacked["vcap ."] != "content" || len(w.log) != 0 {
		t.Errorf("outcome %+v, unpacked %q, log %q", got, w.unpacked, w.log)
	}
}

func TestUpload(t *testing.T) {
	var body []byte
	var head http.Header
	var length int64
	var posts atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("POST /good", func(_ http.ResponseWriter, r *http.Request) {
		head, length = r.Header, r.ContentLength
		body, _ = io.ReadAll(r.Body)
	})
	mux.HandleFunc("POST /bad", func(w http.ResponseWriter, _ *http.Request) {
		posts.Add(1)
		w.WriteHeader(http.StatusBadRequest)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	w := newFakeWorld(t)
	content := strings.Repeat("0123456789", 200_000)
	if err := os.WriteFile(filepath.Join(w.dir, "droplet"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	upload := func(path, file string) Outcome {
		return runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(&models.UploadAction{
			Artifact: "droplet", From: file, To: server.URL + path, User: "vcap",
		})}, nil)
	}
	if got := upload("/good", "/droplet"); got.Reason != "" {
		t.Fatalf("outcome is %+v", got)
	}
	md, sha := md5.Sum([]byte(content)), sha256.Sum256([]byte(content))
	if string(body) != content || length != int64(len(content)) || head.Get("Content-Type") != "application/octet-stream" ||
		head.Get("Content-MD5") != base64.StdEncoding.EncodeToString(md[:]) ||
		head.Get("Content-Digest") != "sha-256=:"+base64.StdEncoding.EncodeToString(sha[:])+":" {
		t.Errorf("%d bytes came with %v", len(body), head)
	}
	if want := "Uploading droplet...|Uploaded droplet (1.9M)"; strings.Join(w.log, "|") != want {
		t.Errorf("log is %q", w.log)
	}
	if got := upload("/bad", "/droplet"); got.Reason != "Uploading droplet failed" || posts.Load() != 1 {
		t.Errorf("outcome is %+v after %d posts", got, posts.Load())
	}
	if got := upload("/good", "/missing"); got.Reason != "Uploading droplet failed" {
		t.Errorf("outcome is %+v", got)
	}
}

// A container can make a file of any size for nothing.
func TestUpload_ofHoles(t *testing.T) {
	for name, size := range map[string]int64{"too large": 1 << 40, "read until the time is over": maxUpload} {
		t.Run(name, func(t *testing.T) {
			w := newFakeWorld(t)
			file, err := os.Create(filepath.Join(w.dir, "droplet"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			got := runTask(t.Context(), t, w, models.TaskDefinition{Action: models.WrapAction(models.Timeout(
				&models.UploadAction{From: "/droplet", To: "http://127.0.0.1:1/", User: "vcap"}, 200*time.Millisecond))}, nil)
			if took := time.Since(begin); got.Reason == "" || took > 5*time.Second {
				t.Errorf("outcome is %+v after %s", got, took)
			}
		})
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1K", 1258291: "1.2M", 5 << 30: "5G", 3 << 40: "3T"} {
		if got := byteSize(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
