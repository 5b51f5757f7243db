package registry

import (
	"errors"
	"strings"
	"testing"
)

func TestConfig_Validate(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"takes plain HTTP on loopback", Config{Listen: "127.0.0.1:0", Dir: "/r"}, ""},
		{"takes mutual TLS", Config{Listen: ":5000", Dir: "/r", TLS: TLSFiles{Cert: "c", Key: "k", ClientCA: "a"}}, ""},
		{"refuses an address without a port", Config{Listen: "localhost", Dir: "/r"}, "host:port"},
		{"refuses a relative directory", Config{Listen: ":0", Dir: "r"}, "absolute"},
		{"refuses a certificate without a key", Config{Listen: ":0", Dir: "/r", TLS: TLSFiles{Cert: "c"}}, "together"},
		{"refuses to demand client certificates without TLS", Config{Listen: ":0", Dir: "/r", TLS: TLSFiles{ClientCA: "a"}}, "only of TLS"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.config.Validate()
			if test.want == "" {
				if err != nil {
					t.Fatalf("got %v", err)
				}
				return
			}
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an ErrConfig that says %q", err, test.want)
			}
		})
	}
}
