package shim

import (
	"encoding/binary"
	"testing"
)

func TestParseExit(t *testing.T) {
	message := func(what, status uint32) []byte {
		m := make([]byte, 16+20+40)
		binary.NativeEndian.PutUint32(m[36:], what)
		binary.NativeEndian.PutUint32(m[60:], status)
		return m
	}
	for _, test := range []struct {
		name    string
		message []byte
		code    int
		ok      bool
	}{
		{"an exit status", message(0x80000000, 7<<8), 7, true},
		{"a signal", message(0x80000000, 9), 137, true},
		{"a fork is no exit", message(1, 7<<8), 0, false},
		{"an acknowledgement is no exit", message(0, 0), 0, false},
		{"what is cut off is no exit", message(0x80000000, 7<<8)[:60], 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, ok := parseExit(test.message)
			if ok != test.ok || ok && exitOf(status).Code != test.code {
				t.Errorf("got %#x, %v", status, ok)
			}
		})
	}
}
