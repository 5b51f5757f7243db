package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTLSFiles_Client(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		files TLSFiles
		want  string
	}{
		{"needs no files", TLSFiles{}, ""},
		{"names authorities that are missing", TLSFiles{CA: filepath.Join(dir, "none.pem")}, "none.pem"},
		{"names authorities without a certificate", TLSFiles{CA: empty}, "empty.pem: the file holds no PEM certificate"},
		{"refuses a certificate that cannot be read", TLSFiles{Cert: empty, Key: empty}, "read client certificate"},
	} {
		t.Run(row.name, func(t *testing.T) {
			config, err := row.files.Client()
			switch {
			case row.want == "" && (err != nil || config == nil):
				t.Errorf("Client() = %v, %v", config, err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("error = %v, want one with %q", err, row.want)
			}
		})
	}
}
